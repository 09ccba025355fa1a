// What numbers mean and how they are rounded, as core/dtype.hpp and core/format.hpp define it, for kernels; the tests
// hold these functions to those on the host. Not here: where numbers lie (layout.hpp).
#pragma once

#include "simt.cuh"

#include <cmath>
#include <cstring>

namespace finteam::cuda_v0_1::kernels {

template <class To, class From>
__host__ __device__ __forceinline__ To bits(From x) {
  static_assert(sizeof(To) == sizeof(From));
  To y;
  memcpy(&y, &x, sizeof(To));
  return y;
}

/// p, some bytes further, as a T that is aligned.
template <class T>
__host__ __device__ __forceinline__ T at(const void* p, std::int64_t bytes = 0) {
  return *reinterpret_cast<const T*>(static_cast<const std::byte*>(p) + bytes);
}
template <class T>
__host__ __device__ __forceinline__ void put(void* p, std::int64_t bytes, T x) {
  *reinterpret_cast<T*>(static_cast<std::byte*>(p) + bytes) = x;
}

__host__ __device__ __forceinline__ float from_bf16(std::uint32_t x) { return bits<float>(x << 16); }
/// Round to nearest, ties to even; NaN stays NaN.
__host__ __device__ __forceinline__ std::uint16_t to_bf16(float x) {
  auto u = bits<std::uint32_t>(x);
  if ((u & 0x7FFFFFFFU) > 0x7F800000U) return static_cast<std::uint16_t>((u >> 16) | 0x40U);
  u += 0x7FFFU + ((u >> 16) & 1U);
  return static_cast<std::uint16_t>(u >> 16);
}
__host__ __device__ __forceinline__ std::uint32_t to_bf16_pair(float low, float high) {
  return static_cast<std::uint32_t>(to_bf16(low)) | static_cast<std::uint32_t>(to_bf16(high)) << 16;
}
__host__ __device__ __forceinline__ float rounded_to_bf16(float x) { return from_bf16(to_bf16(x)); }

__host__ __device__ __forceinline__ float not_a_number() { return bits<float>(0x7FC00000U); }
__host__ __device__ __forceinline__ float infinity() { return bits<float>(0x7F800000U); }
/// |x| as a number that has the order of magnitudes; NaN is the greatest.
__host__ __device__ __forceinline__ std::uint32_t magnitude(float x) { return bits<std::uint32_t>(x) & 0x7FFFFFFFU; }

/// Groups whose greatest magnitude is below this are zero: 127 divided by it must be finite.
inline constexpr float least_magnitude = 1e-30F;

/// The nearest integer, ties to even; |x| < 2^22.
__host__ __device__ __forceinline__ std::int32_t nearest(float x) {
  return static_cast<std::int32_t>(bits<std::uint32_t>(x + 12582912.0F) - 0x4B400000U);
}
/// x · inverse as a signed byte; x is finite or the byte does not count.
__host__ __device__ __forceinline__ std::int32_t to_byte(float x, float inverse) {
  return nearest(fminf(fmaxf(x * inverse, -127.0F), 127.0F));
}

/// What a group of activations is rounded with; most: the greatest magnitude, as magnitude() has it.
/// Source: quantise_activations of core/format.hpp.
struct ActivationScale {
  float scale, inverse;
};
__host__ __device__ __forceinline__ ActivationScale activation_scale(std::uint32_t most) {
  const auto x = bits<float>(most);
  if (x < least_magnitude) return {0, 0};
  if (most >= 0x7F800000U) return {not_a_number(), 0};
  return {x / 127.0F, 127.0F / x};
}
/// The same for a group of a key: its scale is a bf16 number. Source: quantise_weights, int8.
__host__ __device__ __forceinline__ ActivationScale key_scale(std::uint32_t most) {
  const auto x = bits<float>(most);
  if (x < least_magnitude) return {0, 0};
  if (most >= 0x7F800000U) return {not_a_number(), 0};
  const float scale = rounded_to_bf16(x / 127.0F);
  return {scale, 1.0F / scale};
}

/// Element (row, j) of a matrix, exactly as it is stored.
__host__ __device__ inline float element(const MatrixLayout& w, const void* data, std::int64_t row, std::int64_t j) {
  if (w.format == Format::f32) return at<float>(data, (row * w.stride() + j) * 4);
  if (!is_integer(w.format)) return from_bf16(at<std::uint16_t>(data, (row * w.stride() + j) * 2));
  const Place place = w.place(row, j);
  const auto byte = at<std::uint8_t>(data, place.byte);
  if (is_delta(w.format)) {
    const int q = byte >> place.shift & ((1 << bits_of(w.format)) - 1);
    const float scale = at<float>(data, w.scale(row, j));
    return (w.format == Format::int1 ? 2 * static_cast<float>(q) - 1 : static_cast<float>(q) - 1.5F) * scale;
  }
  const float scale = from_bf16(at<std::uint16_t>(data, w.scale(row, j)));
  if (w.format == Format::int8) return scale * static_cast<float>(static_cast<std::int8_t>(byte));
  const float zero = w.format == Format::int4_zero ? from_bf16(at<std::uint16_t>(data, w.scale(row, j) + 128)) : 8.0F;
  return scale * (static_cast<float>(byte >> place.shift & 15) - zero);
}

/// What a gated layer makes of a gate and an up. Sources: Activation in core/activation.hpp.
__host__ __device__ inline float gated(const Gate& g, float gate, float up) {
  if (g.curve == Curve::gelu_tanh) {
    const float inner = 0.7978845608028654F * fmaf(0.044715F * gate * gate, gate, gate);
    return 0.5F * gate * (1.0F + tanhf(inner)) * up;
  }
  if (g.curve == Curve::clamped_silu) {
    const float z = gate > g.limit ? g.limit : gate;  // NaN stays
    const float u = up > g.limit ? g.limit : up < -g.limit ? -g.limit : up;
    return z / (1.0F + expf(-g.alpha * z)) * (u + 1.0F);
  }
  return gate / (1.0F + expf(-gate)) * up;
}

__host__ __device__ __forceinline__ float capped(float x, float cap) { return cap * tanhf(x / cap); }

/// Row i of a product in the step, and what its result counts.
__host__ __device__ __forceinline__ std::int64_t row_of(const Chosen& c, std::int64_t i) {
  return c.rows == nullptr ? i : c.rows[i];
}
__host__ __device__ __forceinline__ float factor_of(const Chosen& c, std::int64_t i) {
  return c.weight == nullptr ? c.scale : c.scale * c.weight[i];
}
__host__ __device__ __forceinline__ float* row(const Rows& x, std::int64_t i) { return x.data + i * x.stride; }
/// Whose scale row i of the step is normed by.
__host__ __device__ __forceinline__ const float* scale_of(const Scales& s, std::int64_t i, std::int64_t d) {
  const std::int32_t k = s.expert == nullptr || s.own == nullptr ? -1 : s.expert[i];
  return k < 0 ? s.shared : s.own + k * d;
}

/// The first position that a row sees which stands at `position`.
__host__ __device__ __forceinline__ std::int32_t first_position(const Rule& rule, std::int32_t position) {
  const std::int32_t first = position + 1 - rule.window;
  return rule.window == 0 || first < 0 ? 0 : first;
}

/// The sum over a warp, the same in every lane and in one order.
__device__ __forceinline__ float warp_sum(float x) {
  for (int mask = 16; mask > 0; mask /= 2) x += simt::exchange(x, mask);
  return x;
}
__device__ __forceinline__ std::int32_t warp_sum(std::int32_t x) {
  for (int mask = 16; mask > 0; mask /= 2) x += simt::exchange(x, mask);
  return x;
}
__device__ __forceinline__ double warp_sum(double x) {
  for (int mask = 16; mask > 0; mask /= 2) x += simt::exchange(x, mask);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
  for (int mask = 16; mask > 0; mask /= 2) x = fmaxf(x, simt::exchange(x, mask));
  return x;
}
__device__ __forceinline__ std::uint32_t warp_max(std::uint32_t x) {
  for (int mask = 16; mask > 0; mask /= 2) {
    const std::uint32_t other = simt::exchange(x, mask);
    x = x > other ? x : other;
  }
  return x;
}

}  // namespace finteam::cuda_v0_1::kernels
