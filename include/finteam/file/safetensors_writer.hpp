// Writes a safetensors file: for tests, tools and a gate that a host has fitted. The reader is safetensors.hpp.
// Not here: other types than F32, F16 and BF16, sharding.
#pragma once

#include <finteam/core/checked.hpp>
#include <finteam/core/dtype.hpp>
#include <finteam/file/json.hpp>

#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// A tensor to be written: data is dense, row-major, Π shape elements of dtype, in this machine's byte order.
struct TensorToWrite {
  std::string name;
  DType dtype = DType::f32;
  std::vector<index_t> shape;
  std::span<const std::byte> data;
};

/// The file's header: its length as u64 little-endian, and the JSON, padded with spaces to a multiple of 8 bytes.
/// Error(invalid_argument): data of another size than the shape's, a name that comes twice or is not UTF-8.
[[nodiscard]] inline std::string safetensors_header(std::span<const TensorToWrite> tensors) {
  static_assert(std::endian::native == std::endian::little, "safetensors data are little-endian");
  Json header = Json::object();
  std::uint64_t at = 0;
  for (const TensorToWrite& t : tensors) {
    std::uint64_t bytes = 0;
    if (!detail::checked_bytes(std::span<const index_t>(t.shape), bytes_of(t.dtype), bytes) || bytes != t.data.size()) {
      throw Error(Code::invalid_argument, detail::printable(t.name), "the bytes of " + detail::shape_string(t.shape),
                  std::to_string(t.data.size()));
    }
    const auto [entry, fresh] = header.emplace(t.name, Json::object());
    if (!fresh || t.name == "__metadata__") {
      throw Error(Code::invalid_argument, detail::printable(t.name), "a name of its own", "one that is taken");
    }
    (*entry)["dtype"] = std::string(name(t.dtype));
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
  text.append((8 - text.size() % 8) % 8, ' ');
  std::string length;
  for (std::uint64_t n = text.size(), i = 0; i < 8; ++i, n >>= 8) length += static_cast<char>(n & 0xFFU);
  return length + text;
}

/// Writes the tensors in the order given. Errors as safetensors_header, and Error(system) if the file cannot be
/// written.
inline void write_safetensors(const std::filesystem::path& path, std::span<const TensorToWrite> tensors) {
  const std::string header = safetensors_header(tensors);
  const auto close = [](std::FILE* f) { std::fclose(f); };
  std::unique_ptr<std::FILE, decltype(close)> file(std::fopen(path.c_str(), "wb"), close);
  bool good = file != nullptr;
  const auto put = [&](const void* data, std::size_t n) {
    good = good && (n == 0 || std::fwrite(data, 1, n, file.get()) == n);
  };
  put(header.data(), header.size());
  for (const TensorToWrite& t : tensors) put(t.data.data(), t.data.size());
  good = good && std::fclose(file.release()) == 0;
  if (!good) {
    throw Error(Code::system, path.string(), "a file that can be written", std::generic_category().message(errno));
  }
}

}  // namespace finteam::inline FINTEAM_ABI
