// One page of one key/value head: 32 keys, then 32 values, laid out so that the kernels of weights serve attention and
// that a sequence's pages are read in one stream. All that is known about the layout is here.
// Not here: sequences (layer/kv_cache.hpp).
//
// Both are panels of 32 outputs: keys are a matrix [32 slots, e], values a matrix [e, 32 slots], e to the next 32.
//        keys                                    values, for each 32 elements
// f32    [e][32]                                 [32 slots][32]
// bf16   [e/2][32][2]                            [16 pairs of slots][32][2]
// int8   two panels of 16 slots, as              scales [32 slots] float, then for each 32 elements signed bytes
//        core/packed.hpp has them                [8][32][4]: slots 2i, 2i + 1, 2i + 16 and 2i + 17 together
// (that order of slots lets weights be packed without a shuffle). Whatever lies beyond e stays zero, as it was when the
// cache was made. A page begins at a multiple of 64 bytes.
#pragma once

#include <finteam/core/packed.hpp>

#include <cstdint>

namespace finteam::inline FINTEAM_ABI {

/// Tokens in one page of a key/value cache. Attention splits at absolute multiples of it.
inline constexpr index_t page_tokens = 32;

/// How keys and values are stored, and what they are multiplied with.
enum class CacheFormat : std::uint8_t {
  f32,   ///< float; float queries and weights
  bf16,  ///< bf16; queries and weights rounded to bf16; 2 bytes a number
  int8,  ///< 8 bits: keys with a scale for every 32, values for every slot; queries and weights in 8 bits, too
};

/// The format's name, for files and messages.
[[nodiscard]] constexpr std::string_view name(CacheFormat f) noexcept {
  return f == CacheFormat::f32 ? "f32" : f == CacheFormat::bf16 ? "bf16" : "int8";
}

/// How a product with the keys takes them, and rounds the queries.
[[nodiscard]] constexpr Format key_format(CacheFormat f) noexcept {
  return f == CacheFormat::f32 ? Format::f32 : f == CacheFormat::bf16 ? Format::bf16 : Format::int8;
}

/// A view of one page of one head of width e. Stored values are always finite: a value that is not makes its own key
/// NaN instead, so that a row that sees the slot is NaN, and one that does not may multiply it by zero.
class KvPage {
 public:
  KvPage(std::byte* data, CacheFormat format, index_t e) noexcept : data_(data), e_(e), format_(format) {}

  /// Bytes of a page; a multiple of 64.
  [[nodiscard]] static constexpr index_t bytes(CacheFormat f, index_t e) noexcept {
    return key_bytes(f, e) + scale_bytes(f) + (e + 31) / 32 * value_panel_bytes(f);
  }
  /// Bytes of 32 keys of width e.
  [[nodiscard]] static constexpr index_t key_bytes(CacheFormat f, index_t e) noexcept {
    return 2 * panel_bytes(key_format(f), e);
  }
  /// Bytes of 32 elements of 32 values.
  [[nodiscard]] static constexpr index_t value_panel_bytes(CacheFormat f) noexcept {
    return page_tokens * 32 * (f == CacheFormat::f32 ? 4 : f == CacheFormat::bf16 ? 2 : 1);
  }

  [[nodiscard]] std::byte* keys() const noexcept { return data_; }
  /// The panels, without the scales.
  [[nodiscard]] std::byte* values() const noexcept { return data_ + key_bytes(format_, e_) + scale_bytes(format_); }
  /// int8: what the bytes of each slot's value are multiplied with. [32]
  [[nodiscard]] float* scales() const noexcept { return reinterpret_cast<float*>(data_ + key_bytes(format_, e_)); }

  /// Element i of the key in a slot, as it counts.
  [[nodiscard]] float key(index_t slot, index_t i) const noexcept {
    if (format_ != CacheFormat::int8) return load(key_at(slot, i));
    return detail::panel_element(Format::int8, key_panel(slot), slot % panel_outputs, i);
  }
  /// Element i of the value in a slot, as it counts.
  [[nodiscard]] float value(index_t slot, index_t i) const noexcept {
    const std::byte* at = value_at(slot, i);
    return format_ != CacheFormat::int8 ? load(at) : scales()[slot] * static_cast<float>(static_cast<std::int8_t>(*at));
  }

  /// Puts a key and a value, [e] each, into a slot. Distinct slots may be written at the same time.
  void write(index_t slot, const float* key, const float* value) const noexcept {
    std::uint32_t bits = 0;
    for (index_t i = 0; i < e_; ++i) bits = std::max(bits, std::bit_cast<std::uint32_t>(value[i]) & 0x7FFFFFFFU);
    const bool finite = bits <= (format_ == CacheFormat::f32 ? 0x7F7FFFFFU : 0x7F7F7FFFU);  // once rounded, too
    const float nan = std::numeric_limits<float>::quiet_NaN();
    write_key(slot, key, e_);
    if (!finite) write_key(slot, &nan, 1);
    write_value(slot, value, finite ? std::bit_cast<float>(bits) : 0.0F);
  }

 private:
  [[nodiscard]] static constexpr index_t scale_bytes(CacheFormat f) noexcept {
    return f == CacheFormat::int8 ? page_tokens * 4 : 0;
  }

  // The float formats.
  [[nodiscard]] std::byte* key_at(index_t slot, index_t i) const noexcept {
    return data_ + (format_ == CacheFormat::f32 ? (i * 32 + slot) * 4 : ((i / 2 * 32 + slot) * 2 + i % 2) * 2);
  }
  [[nodiscard]] float load(const std::byte* at) const noexcept {
    return load_element(at, format_ == CacheFormat::f32 ? DType::f32 : DType::bf16, 0);
  }
  void store(float x, std::byte* at) const noexcept {
    const bf16 rounded = to_bf16(x);
    if (format_ == CacheFormat::f32) {
      std::memcpy(at, &x, 4);
    } else {
      std::memcpy(at, &rounded, 2);
    }
  }

  /// int8.
  [[nodiscard]] std::byte* key_panel(index_t slot) const noexcept {
    return data_ + slot / panel_outputs * panel_bytes(Format::int8, e_);
  }
  [[nodiscard]] std::byte* value_at(index_t slot, index_t i) const noexcept {
    std::byte* panel = values() + i / 32 * value_panel_bytes(format_);
    const index_t lane = i % 32;
    if (format_ == CacheFormat::f32) return panel + (slot * 32 + lane) * 4;
    if (format_ == CacheFormat::bf16) return panel + ((slot / 2 * 32 + lane) * 2 + slot % 2) * 2;
    return panel + (slot % 16 / 2 * 32 + lane) * 4 + slot / 16 * 2 + slot % 2;
  }

  /// The first `count` elements of a key.
  void write_key(index_t slot, const float* key, index_t count) const noexcept {
    if (format_ == CacheFormat::int8) {
      detail::pack_floats(Format::int8, key_panel(slot), slot % panel_outputs, key, count);
    } else {
      for (index_t i = 0; i < count; ++i) store(key[i], key_at(slot, i));
    }
  }

  /// `most` is the greatest magnitude; 0: zeros are written, whatever the value is.
  void write_value(index_t slot, const float* value, float most) const noexcept {
    const bool none = most < detail::least_magnitude;
    const float inverse = none ? 0.0F : 127.0F / most;
    if (format_ == CacheFormat::int8) scales()[slot] = none ? 0.0F : most / 127.0F;
    for (index_t i = 0; i < e_; ++i) {
      const float x = most == 0.0F ? 0.0F : value[i];
      if (format_ != CacheFormat::int8) {
        store(x, value_at(slot, i));
      } else {
        const float q = std::min(std::max(x * inverse, -127.0F), 127.0F);  // so no compiler fuses this product
        *value_at(slot, i) = static_cast<std::byte>(detail::nearest(q));
      }
    }
  }

  std::byte* data_;
  index_t e_;
  CacheFormat format_;
};

}  // namespace finteam::inline FINTEAM_ABI
