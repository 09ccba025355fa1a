// Writes a safetensors file: for tests, tools, packed weights and a gate that a host has fitted. The reader is
// safetensors.hpp. Not here: sharding.
#pragma once

#include <finteam/core/checked.hpp>
#include <finteam/core/dtype.hpp>
#include <finteam/file/file_writer.hpp>
#include <finteam/file/json.hpp>
#include <finteam/file/safetensors_header.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// A tensor that a header tells of. Its type is one of safetensors' names: "F32", "U8".
struct TensorEntry {
  std::string name;
  std::string_view type;
  std::vector<index_t> shape;
};

/// A tensor to be written: data is dense, row-major, Π shape elements of dtype, in this machine's byte order.
struct TensorToWrite {
  std::string name;
  DType dtype = DType::f32;
  std::vector<index_t> shape;
  std::span<const std::byte> data;
};

/// `__metadata__`: free words of the writer.
using SafetensorsMetadata = std::map<std::string, std::string, std::less<>>;

namespace detail {

/// Bytes of a tensor's data. Error(invalid_argument): an unknown type, or a size that does not fit in memory.
[[nodiscard]] inline std::uint64_t bytes_of(const TensorEntry& t) {
  const StoredType* const type = stored_type(t.type);
  std::uint64_t bytes = 0;
  if (type == nullptr || !checked_bytes(std::span<const index_t>(t.shape), type->bytes, bytes)) {
    throw Error(Code::invalid_argument, printable(t.name), "a known type and a size that fits in memory",
                std::string(t.type) + " " + shape_string(t.shape));
  }
  return bytes;
}

}  // namespace detail

/// The file's header: its length as u64 little-endian, and the JSON, padded with spaces so that the data of the
/// tensors, which follow in the order given, begin at a multiple of 64 bytes. Error(invalid_argument): a name that
/// comes twice or is not UTF-8, or as bytes_of.
[[nodiscard]] inline std::string safetensors_header(std::span<const TensorEntry> tensors,
                                                    const SafetensorsMetadata& metadata = {}) {
  static_assert(std::endian::native == std::endian::little, "safetensors data are little-endian");
  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t at = 0;
  for (const TensorEntry& t : tensors) {
    const std::uint64_t bytes = detail::bytes_of(t);
    const auto [entry, fresh] = header.emplace(t.name, Json::object());
    if (!fresh || t.name == "__metadata__") {
      throw Error(Code::invalid_argument, detail::printable(t.name), "a name of its own", "one that is taken");
    }
    (*entry)["dtype"] = std::string(t.type);
    (*entry)["shape"] = t.shape;
    (*entry)["data_offsets"] = {at, at + bytes};
    at += bytes;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const Json::exception&) {
    throw Error(Code::invalid_argument, "tensor names", "UTF-8", "other bytes");
  }
  text.append(63 - (text.size() + 8 + 63) % 64, ' ');
  std::string length;
  for (std::uint64_t n = text.size(), i = 0; i < 8; ++i, n >>= 8) length += static_cast<char>(n & 0xFFU);
  return length + text;
}

/// The header of tensors whose data are at hand. Errors as the other safetensors_header, and Error(invalid_argument)
/// for data of another size than the shape's.
[[nodiscard]] inline std::string safetensors_header(std::span<const TensorToWrite> tensors) {
  std::vector<TensorEntry> entries;
  for (const TensorToWrite& t : tensors) {
    entries.push_back({t.name, name(t.dtype), t.shape});
    if (detail::bytes_of(entries.back()) != t.data.size()) {
      throw Error(Code::invalid_argument, detail::printable(t.name), "the bytes of " + detail::shape_string(t.shape),
                  std::to_string(t.data.size()));
    }
  }
  return safetensors_header(std::span<const TensorEntry>(entries));
}

/// Writes the tensors in the order given. Errors as safetensors_header and FileWriter.
inline void write_safetensors(const std::filesystem::path& path, std::span<const TensorToWrite> tensors) {
  const std::string header = safetensors_header(tensors);
  FileWriter file(path);
  file.write(header);
  for (const TensorToWrite& t : tensors) file.write(t.data);
  file.commit();
}

}  // namespace finteam::inline FINTEAM_ABI
