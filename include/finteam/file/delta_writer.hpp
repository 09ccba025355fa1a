// Writes what delta.hpp reads: a fine-tuned checkpoint as its difference to a base, a tensor at a time.
// Not here: which tensors are matrices of a model's blocks; the caller says.
#pragma once

#include <finteam/file/delta.hpp>
#include <finteam/file/safetensors_writer.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// What becomes of a tensor of a fine-tuned checkpoint.
enum class DeltaPart : std::uint8_t {
  low_bit,  ///< its difference to the base's in few bits; a matrix
  whole,    ///< kept as it is, unless it is the base's
  base,     ///< the base's is taken for it
};

/// A matrix that was written as a difference, and how far that is off.
struct WrittenDelta {
  std::string name;
  DeltaError error;
};

/// How a difference is taken.
struct DeltaOptions {
  Format format = Format::int1;
  DeltaScales scales = DeltaScales::row;
  /// What becomes of the tensor of that name.
  std::function<DeltaPart(std::string_view name)> part = [](std::string_view) { return DeltaPart::whole; };
  /// Called after every difference. May be empty.
  std::function<void(const WrittenDelta&)> written{};
};

namespace detail {

/// The difference of one pair of tensors [n, k], and its rounding. Buffers are kept for the next.
class DeltaRounding {
 public:
  DeltaRounding(Format format, DeltaScales scales) : format_(format), of_matrix_(scales == DeltaScales::matrix) {}

  /// False if a number is not finite.
  [[nodiscard]] bool run(const RawTensor& base, const RawTensor& tuned) {
    const index_t n = base.shape[0], k = base.shape[1];
    difference(base, tuned);
    const auto row_bytes = static_cast<std::size_t>(delta_row_bytes(format_, k));
    numbers_.assign(static_cast<std::size_t>(n) * row_bytes, std::byte{0});
    scales_.clear();
    error_ = {};
    if (of_matrix_) scales_.push_back(fit_delta_scale(format_, d_));
    for (index_t i = 0; i < n; ++i) {
      const auto row = std::span(d_).subspan(static_cast<std::size_t>(i * k), static_cast<std::size_t>(k));
      if (!of_matrix_) scales_.push_back(fit_delta_scale(format_, row));
      if (!std::isfinite(scales_.back())) return false;
      quantise_delta(format_, row, scales_.back(), numbers_.data() + static_cast<std::size_t>(i) * row_bytes);
      const DeltaError error = delta_error(format_, row, scales_.back());
      error_.squares += error.squares;
      error_.errors += error.errors;
    }
    return true;
  }

  [[nodiscard]] std::span<const std::byte> numbers() const noexcept { return numbers_; }
  [[nodiscard]] std::span<const std::byte> scales() const noexcept { return std::as_bytes(std::span(scales_)); }
  [[nodiscard]] const DeltaError& error() const noexcept { return error_; }

 private:
  /// d_ = tuned - base, in float
  void difference(const RawTensor& base, const RawTensor& tuned) {
    constexpr index_t piece = 4096;
    d_.resize(static_cast<std::size_t>(base.size()));
    std::array<float, piece> from;
    for (index_t j = 0; j < base.size(); j += piece) {
      const index_t count = std::min(piece, base.size() - j);
      float* const d = d_.data() + j;
      load_elements(base.data, base.dtype, j, count, from.data());
      load_elements(tuned.data, tuned.dtype, j, count, d);
      for (index_t i = 0; i < count; ++i) d[i] -= from[static_cast<std::size_t>(i)];
    }
  }

  Format format_;
  bool of_matrix_;
  std::vector<float> d_, scales_;
  std::vector<std::byte> numbers_;
  DeltaError error_;
};

/// Error(mismatch) unless the tensor is one.
inline void require_matrix(const RawTensor& raw, const std::string& where) {
  if (raw.shape.size() != 2) throw Error(Code::mismatch, where, "a matrix", shape_string(raw.shape));
}

/// Whether two tensors hold the same numbers.
[[nodiscard]] inline bool same_numbers(const RawTensor& a, const RawTensor& b) noexcept {
  if (a.dtype == b.dtype) return std::memcmp(a.data, b.data, data_of(a).size()) == 0;
  for (index_t i = 0; i < a.size(); ++i) {
    if (a[i] != b[i]) return false;
  }
  return true;
}

/// The names of a pair's tensors, in order. A checkpoint may lack the old `rotary_emb.inv_freq`, which repeats the
/// config. Error(mismatch): a tensor that only one of them has, or in another shape.
[[nodiscard]] inline std::vector<std::string_view> paired_names(const Checkpoint& base, const Checkpoint& tuned) {
  std::vector<std::string_view> names;
  const auto repeats_config = [](std::string_view name) { return name.ends_with("rotary_emb.inv_freq"); };
  for (const std::string_view name : base.names()) {
    if (!repeats_config(name) && !tuned.contains(name)) {
      throw Error(Code::mismatch, tuned.where(name), "a tensor, as in " + base.where(), "none of that name");
    }
  }
  for (const std::string_view name : tuned.names()) {
    if (repeats_config(name)) continue;
    if (!base.contains(name)) {
      throw Error(Code::mismatch, tuned.where(name), "a tensor that " + base.where() + " has too", "one of its own");
    }
    (void)tuned.tensor(name, base.tensor(name).shape);
    names.push_back(name);
  }
  return names;
}

}  // namespace detail

/// Writes delta.safetensors and delta_config.json into `folder`, which is made if it is not there. The base is read
/// twice (its hash comes first), the fine-tuned one once and, for tensors kept whole, twice; memory is 5 bytes for
/// every number of the largest matrix. Error(mismatch): a tensor that only one of the checkpoints has, or in another
/// shape, or a low_bit tensor that is no matrix. Error(malformed): a number that is not finite.
/// Error(invalid_argument): a format that is none of a difference. Else as Checkpoint::find and FileWriter.
inline void write_delta(const Checkpoint& base, const Checkpoint& tuned, const std::filesystem::path& folder,
                        const DeltaOptions& options) {
  if (!is_delta(options.format)) {
    throw Error(Code::invalid_argument, "format", "int1 or int2", std::string(name(options.format)));
  }
  std::vector<std::string_view> low_bit, whole;
  std::vector<TensorEntry> entries;
  for (const std::string_view name : detail::paired_names(base, tuned)) {
    const RawTensor raw = tuned.tensor(name);
    const DeltaPart part = options.part(name);
    if (part == DeltaPart::whole && !detail::same_numbers(raw, base.tensor(name))) whole.push_back(name);
    if (part != DeltaPart::low_bit) {
      base.release(name);
      tuned.release(name);
      continue;
    }
    detail::require_matrix(raw, tuned.where(name));
    const index_t n = raw.shape[0], row_bytes = delta_row_bytes(options.format, raw.shape[1]);
    low_bit.push_back(name);
    entries.push_back({std::string(name) + std::string(detail::delta_suffix), "U8", {n, row_bytes}});
    entries.push_back({std::string(name) + std::string(detail::delta_scale_suffix),
                       "F32",
                       {options.scales == DeltaScales::row ? n : 1}});
  }
  for (const std::string_view name : whole) {
    const RawTensor raw = tuned.tensor(name);
    entries.push_back({std::string(name), FINTEAM_ABI::name(raw.dtype), {raw.shape.begin(), raw.shape.end()}});
  }

  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw Error(Code::system, folder.string(), "a folder that can be written", error.message());
  const DeltaConfig config{options.format, options.scales, header_hash(base), contents_hash(base)};
  FileWriter file(folder / "delta.safetensors");
  file.write(safetensors_header(
      entries, {{"finteam_delta", std::to_string(DeltaConfig::version)}, {"base_hash", config.base_hash}}));
  detail::DeltaRounding rounding(options.format, options.scales);
  for (const std::string_view name : low_bit) {
    if (!rounding.run(base.tensor(name), tuned.tensor(name))) {
      throw Error(Code::malformed, tuned.where(name), "a finite difference to " + base.where(), "one that is not");
    }
    file.write(rounding.numbers());
    file.write(rounding.scales());
    base.release(name);
    tuned.release(name);
    if (options.written) options.written({std::string(name), rounding.error()});
  }
  for (const std::string_view name : whole) {
    file.write(detail::data_of(tuned.tensor(name)));
    tuned.release(name);
  }
  file.commit();
  FileWriter text(folder / "delta_config.json");
  text.write(config.json().dump(2) + '\n');
  text.commit();
}

}  // namespace finteam::inline FINTEAM_ABI
