// A fine-tuned checkpoint as its difference to a base, in a folder of its own:
//   delta_config.json   {"finteam_delta": 1, "bits": 1 | 2, "scales": "row" | "matrix", "base_header_hash": "…",
//                        "base_hash": "…"}
//   delta.safetensors   for a matrix NAME [n, k] of the base  NAME.delta        U8 [n, bytes of k numbers]
//   (core/delta.hpp)
//                                                             NAME.delta_scale  F32 [n], or [1]
//                       for a tensor that is kept in full     NAME, of the base's shape
//                       and in its metadata "finteam_delta": "1", "base_hash"
// What it does not hold is the base's. Not here: writing one (delta_writer.hpp), which tensors a model needs.
#pragma once

#include <finteam/core/delta.hpp>
#include <finteam/core/hash.hpp>
#include <finteam/file/checkpoint.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace finteam::inline FINTEAM_ABI {

/// XXH64 of the names, types and shapes of a checkpoint's tensors, whichever files they lie in. Reads no data.
/// Errors as Checkpoint::find.
[[nodiscard]] std::string header_hash(const Checkpoint& checkpoint);
/// The same, and of all bytes, which are read tensor by tensor: about 10 GB/s from memory.
[[nodiscard]] std::string contents_hash(const Checkpoint& checkpoint);

/// How a base is known to be the one that a difference was taken to.
enum class BaseCheck : std::uint8_t {
  headers,   ///< by the names, types and shapes of its tensors
  contents,  ///< by all its bytes, which are read
};

/// How many scales a matrix has.
enum class DeltaScales : std::uint8_t {
  row,     ///< one for every output
  matrix,  ///< one
};

/// What delta_config.json says.
struct DeltaConfig {
  static constexpr int version = 1;
  static constexpr JsonLimits limits{.depth = 4, .values = 100, .bytes = 1 << 16};

  Format format = Format::int1;
  DeltaScales scales = DeltaScales::row;
  std::string base_header_hash, base_hash;  ///< 16 hexadecimal digits

  /// Reads one. Error(unsupported): another version, bits or word, or a key that is not known; else as JsonView.
  [[nodiscard]] static DeltaConfig read(const JsonView& json);
  /// As the file has it.
  [[nodiscard]] Json json() const;
};

namespace detail {

inline constexpr std::string_view delta_suffix = ".delta", delta_scale_suffix = ".delta_scale";

/// The hash of a line for every tensor, in the order of their names.
template <class More>
[[nodiscard]] std::string hash_of_tensors(const Checkpoint& checkpoint, More&& more) {
  std::string lines;
  for (const std::string_view name : checkpoint.names()) {
    const RawTensor raw = checkpoint.tensor(name);
    lines += std::string(name) + ' ' + std::string(FINTEAM_ABI::name(raw.dtype)) + ' ' + shape_string(raw.shape) +
             more(name, raw) + '\n';
  }
  return hex(xxh64(std::as_bytes(std::span(lines.data(), lines.size()))));
}

/// A tensor's bytes in its file.
[[nodiscard]] inline std::span<const std::byte> data_of(const RawTensor& raw) noexcept {
  return {raw.data, static_cast<std::size_t>(raw.size()) * FINTEAM_ABI::bytes_of(raw.dtype)};
}

}  // namespace detail

inline std::string header_hash(const Checkpoint& checkpoint) {
  return detail::hash_of_tensors(checkpoint, [](std::string_view, const RawTensor&) { return std::string(); });
}

inline std::string contents_hash(const Checkpoint& checkpoint) {
  const auto hash = detail::hash_of_tensors(checkpoint, [&](std::string_view name, const RawTensor& raw) {
    const std::uint64_t bytes = xxh64(detail::data_of(raw));
    checkpoint.release(name);
    return ' ' + detail::hex(bytes);
  });
  checkpoint.release();
  return hash;
}

inline DeltaConfig DeltaConfig::read(const JsonView& json) {
  const JsonView number = json.at("finteam_delta");
  if (number.as_int(0, 1'000'000) != version) number.refuse("version 1", Code::unsupported);
  detail::only_keys(json, {"finteam_delta", "bits", "scales", "base_header_hash", "base_hash"});
  DeltaConfig c;
  const JsonView bits = json.at("bits"), scales = json.at("scales");
  const std::int64_t count = bits.as_int(0, 64);
  if (count != 1 && count != 2) bits.refuse("1 or 2", Code::unsupported);
  c.format = count == 1 ? Format::int1 : Format::int2;
  const std::string& word = scales.as_string();
  if (word != "row" && word != "matrix") scales.refuse("\"row\" or \"matrix\"", Code::unsupported);
  c.scales = word == "row" ? DeltaScales::row : DeltaScales::matrix;
  const auto hash = [&](std::string_view key) {
    const JsonView text = json.at(key);
    const std::string& digits = text.as_string();
    if (digits.size() != 16 || digits.find_first_not_of("0123456789abcdef") != std::string::npos) {
      text.refuse("16 hexadecimal digits");
    }
    return digits;
  };
  c.base_header_hash = hash("base_header_hash");
  c.base_hash = hash("base_hash");
  return c;
}

inline Json DeltaConfig::json() const {
  return {{"finteam_delta", version},
          {"bits", bits_of(format)},
          {"scales", scales == DeltaScales::row ? "row" : "matrix"},
          {"base_header_hash", base_header_hash},
          {"base_hash", base_hash}};
}

/// The difference in a folder, mapped and checked against its base. Immutable; moves, and what it gave out stays good
/// when it does.
class DeltaCheckpoint {
 public:
  /// Opens `folder`. Error(mismatch): the base is another, by its headers or, where asked for, its contents (`check`);
  /// a tensor that the base does not have, or not in that shape; numbers or scales of another type or shape, or one
  /// without the other. Error(malformed): a broken file, a scale that is negative or not finite, or a tensor that is
  /// there in full and as a difference. Else as DeltaConfig::read, Safetensors::open and find.
  [[nodiscard]] static DeltaCheckpoint open(const std::filesystem::path& folder, const Checkpoint& base,
                                            BaseCheck check = BaseCheck::headers) {
    const auto path = folder / "delta_config.json";
    const JsonFile json = JsonFile::open(path, DeltaConfig::limits);
    DeltaCheckpoint self(DeltaConfig::read(json.root()), Safetensors::open(folder / "delta.safetensors"));
    self.check_metadata();
    require_base(json.where() + ": base_header_hash", self.config_.base_header_hash, base, header_hash(base));
    if (check == BaseCheck::contents) {
      require_base(json.where() + ": base_hash", self.config_.base_hash, base, contents_hash(base));
    }
    for (const std::string_view name : self.file_.names()) self.keep(name, base);
    return self;
  }

  [[nodiscard]] const DeltaConfig& config() const noexcept { return config_; }

  /// The difference to the base's matrix `name`, or null if there is none.
  [[nodiscard]] const RawDelta* find(std::string_view name) const {
    const auto found = deltas_.find(name);
    return found != deltas_.end() ? &found->second : nullptr;
  }
  /// What stands in the place of the base's tensor `name`, of its shape, or null.
  [[nodiscard]] const RawTensor* find_whole(std::string_view name) const {
    const auto found = whole_.find(name);
    return found != whole_.end() ? &found->second : nullptr;
  }

  /// By the base's names: all differences, and all tensors that are there in full.
  [[nodiscard]] const std::map<std::string, RawDelta, std::less<>>& deltas() const noexcept { return deltas_; }
  [[nodiscard]] const std::map<std::string, RawTensor, std::less<>>& whole() const noexcept { return whole_; }

  /// The file that holds them.
  [[nodiscard]] const Safetensors& file() const noexcept { return file_; }

 private:
  DeltaCheckpoint(DeltaConfig config, Safetensors file) : config_(std::move(config)), file_(std::move(file)) {}

  void check_metadata() const {
    const auto require = [&](std::string_view key, const std::string& value) {
      const auto found = file_.metadata().find(key);
      if (found != file_.metadata().end() && found->second == value) return;
      throw Error(Code::mismatch, file_.where() + ": __metadata__." + std::string(key),
                  value + ", as delta_config.json",
                  found != file_.metadata().end() ? detail::in_quotes(found->second) : "none");
    };
    require("finteam_delta", std::to_string(DeltaConfig::version));
    require("base_hash", config_.base_hash);
  }

  static void require_base(const std::string& where, const std::string& hash, const Checkpoint& base,
                           const std::string& found) {
    if (hash == found) return;
    throw Error(Code::mismatch, where, "the base that the difference was taken to, with hash " + hash,
                base.where() + " with hash " + found);
  }

  [[nodiscard]] std::string named(std::string_view name) const {
    return file_.where() + ": " + detail::printable(name);
  }

  void keep(std::string_view name, const Checkpoint& base) {
    if (name.ends_with(detail::delta_suffix)) {
      keep_delta(name.substr(0, name.size() - detail::delta_suffix.size()), base);
    } else if (name.ends_with(detail::delta_scale_suffix)) {
      const auto of = std::string(name.substr(0, name.size() - detail::delta_scale_suffix.size()));
      if (file_.contains(of + std::string(detail::delta_suffix))) return;
      throw Error(Code::mismatch, named(name), "scales beside the numbers of a difference", "no such numbers");
    } else {
      const RawTensor raw = file_.tensor(name);
      const RawTensor replaced = in_base(name, name, base);
      if (!std::ranges::equal(raw.shape, replaced.shape)) {
        throw Error(Code::mismatch, named(name), detail::shape_string(replaced.shape) + ", as in " + base.where(),
                    detail::shape_string(raw.shape));
      }
      whole_.emplace(name, raw);
    }
  }

  [[nodiscard]] RawTensor in_base(std::string_view name, std::string_view stored, const Checkpoint& base) const {
    if (const RawTensor* const raw = base.find(name)) return *raw;
    throw Error(Code::mismatch, named(stored), "a tensor of " + base.where(), "none of that name");
  }

  void keep_delta(std::string_view name, const Checkpoint& base) {
    const std::string numbers = std::string(name) + std::string(detail::delta_suffix),
                      scales = std::string(name) + std::string(detail::delta_scale_suffix);
    const RawTensor of = in_base(name, numbers, base);
    if (of.shape.size() != 2) {
      throw Error(Code::mismatch, named(numbers), "a difference to a matrix", detail::shape_string(of.shape));
    }
    if (file_.contains(name)) {
      throw Error(Code::malformed, named(name), "a tensor in full or a difference", "both");
    }
    RawDelta delta{.n = of.shape[0], .k = of.shape[1], .format = config_.format};
    delta.scale_count = config_.scales == DeltaScales::row ? delta.n : 1;
    delta.numbers = part(numbers, "U8", std::array{delta.n, delta_row_bytes(delta.format, delta.k)});
    delta.scales = part(scales, "F32", std::array{delta.scale_count});
    for (index_t i = 0; i < delta.scale_count; ++i) {
      const float scale = load_element(delta.scales, DType::f32, i);
      if (scale >= 0 && std::isfinite(scale)) continue;
      throw Error(Code::malformed, named(scales), "finite scales that are not negative", std::to_string(scale));
    }
    deltas_.emplace(name, delta);
  }

  template <std::size_t Rank>
  [[nodiscard]] const std::byte* part(const std::string& name, std::string_view type,
                                      const std::array<index_t, Rank>& shape) const {
    const auto bytes = file_.bytes(name, type, shape);
    if (bytes) return bytes->data();
    throw Error(Code::mismatch, named(name), std::string(type) + ' ' + detail::shape_string(shape),
                file_.contains(name) ? "another type or shape" : "none of that name");
  }

  DeltaConfig config_;
  Safetensors file_;
  std::map<std::string, RawDelta, std::less<>> deltas_;
  std::map<std::string, RawTensor, std::less<>> whole_;
};

}  // namespace finteam::inline FINTEAM_ABI
