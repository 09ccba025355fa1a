// What a safetensors header says, checked: each tensor's own facts, and that the tensors tile the data.
// Not here: the file and its tensors (safetensors.hpp).
#pragma once

#include <finteam/core/checked.hpp>
#include <finteam/core/dtype.hpp>
#include <finteam/file/json_view.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI::detail {

inline constexpr std::uint64_t safetensors_max_header = 100'000'000;
inline constexpr std::size_t safetensors_max_tensors = 100'000;
inline constexpr std::size_t safetensors_max_rank = 64;

/// A storage type that a file may hold; those without a DType are measured and refused only when they are asked for.
struct StoredType {
  std::string_view name;
  std::uint64_t bytes;
  std::optional<DType> dtype;
};

/// The type of that name, or null.
[[nodiscard]] inline const StoredType* stored_type(std::string_view name) noexcept {
  static constexpr std::array<StoredType, 16> types{{{"F32", 4, DType::f32},
                                                     {"F16", 2, DType::f16},
                                                     {"BF16", 2, DType::bf16},
                                                     {"BOOL", 1, {}},
                                                     {"U8", 1, {}},
                                                     {"I8", 1, {}},
                                                     {"F8_E4M3", 1, {}},
                                                     {"F8_E5M2", 1, {}},
                                                     {"F8_E8M0", 1, {}},
                                                     {"I16", 2, {}},
                                                     {"U16", 2, {}},
                                                     {"I32", 4, {}},
                                                     {"U32", 4, {}},
                                                     {"I64", 8, {}},
                                                     {"U64", 8, {}},
                                                     {"F64", 8, {}}}};
  const auto* found = std::ranges::find(types, name, &StoredType::name);
  return found != types.end() ? found : nullptr;
}

/// One tensor as the header states it, its own facts checked, not yet its neighbours'.
struct HeaderEntry {
  std::string name;
  const StoredType* type = nullptr;
  std::vector<index_t> shape;
  std::uint64_t begin = 0, end = 0;  ///< bytes after the header
};

/// Reads the entry of one tensor. Error as Safetensors::parse.
[[nodiscard]] inline HeaderEntry read_header_entry(std::string_view name, const JsonView& json) {
  HeaderEntry entry;
  entry.name = name;
  const JsonView type = json.at("dtype");
  entry.type = stored_type(type.as_string());
  if (entry.type == nullptr) type.refuse("a known dtype", Code::unsupported);

  const JsonView shape = json.at("shape");
  if (shape.size() > safetensors_max_rank) {
    shape.refuse("at most " + std::to_string(safetensors_max_rank) + " extents", Code::limit_exceeded);
  }
  // An extent of zero must not hide a product of the others that overflows: strides are made of those.
  std::vector<index_t> at_least_one;
  shape.each([&](const JsonView& extent) {
    const std::uint64_t e = extent.as_unsigned();
    if (!std::in_range<index_t>(e)) extent.refuse("an extent that fits in memory");
    entry.shape.push_back(static_cast<index_t>(e));
    at_least_one.push_back(std::max<index_t>(static_cast<index_t>(e), 1));
  });
  std::uint64_t bytes = 0;
  if (!checked_bytes(std::span<const index_t>(at_least_one), entry.type->bytes, bytes)) {
    throw Error(Code::malformed, shape.where(), "a size that fits in memory", shape_string(entry.shape));
  }
  (void)checked_bytes(std::span<const index_t>(entry.shape), entry.type->bytes, bytes);

  const JsonView offsets = json.at("data_offsets");
  if (offsets.size() != 2) offsets.refuse("[begin, end]");
  entry.begin = offsets[0].as_unsigned();
  entry.end = offsets[1].as_unsigned();
  if (entry.begin > entry.end || entry.end - entry.begin != bytes) {
    throw Error(
        Code::malformed, offsets.where(),
        std::to_string(bytes) + " bytes for " + shape_string(entry.shape) + " of " + std::string(entry.type->name),
        '[' + std::to_string(entry.begin) + ", " + std::to_string(entry.end) + ']');
  }
  return entry;
}

/// Sorted by place, the entries must follow each other from 0 to `bytes` without a hole or an overlap.
inline void check_tiling(std::vector<HeaderEntry>& entries, std::uint64_t bytes, const std::string& where) {
  std::ranges::sort(entries, [](const HeaderEntry& a, const HeaderEntry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  std::uint64_t at = 0;
  for (const HeaderEntry& entry : entries) {
    const auto named = [&] { return where + ": " + printable(entry.name); };
    if (entry.end > bytes) {
      throw Error(Code::malformed, named(), "an end within the file's " + std::to_string(bytes) + " bytes of data",
                  std::to_string(entry.end));
    }
    if (entry.begin != at) {
      throw Error(Code::malformed, named(), "data from byte " + std::to_string(at),
                  std::to_string(entry.begin) + (entry.begin < at ? ", an overlap" : ", a hole"));
    }
    at = entry.end;
  }
  if (at != bytes) {
    throw Error(Code::malformed, where, std::to_string(at) + " bytes of data, as the header says",
                std::to_string(bytes));
  }
}

/// The JSON of [u64 n, little-endian][n bytes of JSON][data]. Error(malformed): a length past the end or the limit.
[[nodiscard]] inline std::string_view safetensors_header_text(std::span<const std::byte> bytes,
                                                              const std::string& where) {
  if (bytes.size() < 8) {
    throw Error(Code::malformed, where, "a safetensors file of at least 8 bytes", std::to_string(bytes.size()));
  }
  std::uint64_t length = 0;
  for (std::size_t i = 8; i-- > 0;) length = length << 8 | std::to_integer<std::uint64_t>(bytes[i]);
  const std::uint64_t most = std::min<std::uint64_t>(bytes.size() - 8, safetensors_max_header);
  if (length > most) {
    throw Error(Code::malformed, where, "a header of at most " + std::to_string(most) + " bytes",
                std::to_string(length));
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, static_cast<std::size_t>(length));
  if (!text.starts_with('{')) {
    throw Error(Code::malformed, where, "a header that starts with {", in_quotes(text.substr(0, 1)));
  }
  return text;
}

}  // namespace finteam::inline FINTEAM_ABI::detail
