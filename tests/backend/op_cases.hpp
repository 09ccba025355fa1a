// Every op of a backend on one set of shapes and pseudo-random inputs, as a list of named outputs. The tests compare
// such lists between backends, executors and batches; op_hash.cpp hashes one.
#pragma once

#include <finteam/backend/backend.hpp>
#include <finteam/backend/fp_environment.hpp>

#include "inputs.hpp"

#include <array>

namespace op_cases {

using finteam::DType;
using finteam::index_t;
using finteam::Weights;
using Host = finteam::Host;

/// What an op is tried on: t rows (the first of `rows`, from row `first` on), and the widths of the model.
struct Shape {
  index_t rows, d, f, h, g, e, n;
};

struct Output {
  std::string name;
  std::vector<float> values;
};

/// Rows [first, first + count) of the case's rows: a batch, or one row alone.
struct Batch {
  index_t first, count;
};

inline finteam::MatrixView<float> matrix(std::vector<float>& v, index_t columns) {
  return {v.data(), {static_cast<index_t>(v.size()) / columns, columns}};
}
inline finteam::TensorView<float, 3> heads(std::vector<float>& v, index_t h, index_t e) {
  return {v.data(), {static_cast<index_t>(v.size()) / (h * e), h, e}};
}

inline constexpr std::array<finteam::CacheFormat, 3> cache_formats{
    finteam::CacheFormat::f32, finteam::CacheFormat::bf16, finteam::CacheFormat::int8};

/// A cache of `rows` sequences whose pages lie scattered, filled to their positions with random keys and values. Every
/// other slot is what another sequence may have left: NaN as keys, great numbers as values.
struct Cache {
  finteam::CacheFormat format;
  index_t g, e, pages_each;
  finteam::Tensor<std::byte, 3> heads;
  std::vector<std::int32_t> pages;
  std::vector<finteam::Site> sites;

  Cache(finteam::CacheFormat cache_format, index_t rows, index_t kv_heads, index_t width,
        std::vector<std::int32_t> positions, index_t pages_of_each = 3)
      : format(cache_format),
        g(kv_heads),
        e(width),
        pages_each(pages_of_each),
        heads({g, rows * pages_each, finteam::KvPage::bytes(format, e)}) {
    const auto width_of = static_cast<std::size_t>(e);
    const std::vector<float> key(width_of, std::bit_cast<float>(0x7FC00000U)), value(width_of, 1e30F);
    for (index_t i = 0; i < g * rows * pages_each * finteam::page_tokens; ++i) {
      const index_t page = i / finteam::page_tokens;
      layer().page(page / g, page % g).write(i % finteam::page_tokens, key.data(), value.data());
    }
    for (index_t r = 0; r < rows; ++r) {
      for (index_t p = 0; p < pages_each; ++p) pages.push_back(static_cast<std::int32_t>(p * rows + (r + p) % rows));
    }
    for (index_t r = 0; r < rows; ++r) {
      const auto at = static_cast<std::size_t>(r);
      sites.push_back({pages.data() + r * pages_each, positions[at % positions.size()]});
    }
  }
  Cache(const Cache&) = delete;
  finteam::CacheLayer<Host> layer() { return {heads.view(), format, e}; }

  /// The page that holds a position, and its slot.
  finteam::KvPage page(const finteam::Site& site, index_t position, index_t head) {
    return layer().page(site.pages[position / finteam::page_tokens], head);
  }
  static index_t slot(index_t position) { return position % finteam::page_tokens; }

  /// Fills every row's sequence up to and with its position, not by way of a backend.
  void fill(std::uint64_t seed) {
    const finteam::FpEnvironment environment;  // rounding is part of the format
    inputs::Random random{seed};
    std::vector<float> k(static_cast<std::size_t>(e)), v(k.size());
    for (const auto& site : sites) {
      for (index_t p = 0; p <= site.position; ++p) {
        for (index_t head = 0; head < g; ++head) {
          for (std::size_t i = 0; i < k.size(); ++i) {
            k[i] = random.value();
            v[i] = random.value();
          }
          page(site, p, head).write(slot(p), k.data(), v.data());
        }
      }
    }
  }
};

/// A file's type and what is made of it: every format, and every type as a source.
struct Kept {
  Weights weights;
  DType dtype;
};
inline constexpr std::array<Kept, 8> kept{{{Weights::stored, DType::f32},
                                           {Weights::stored, DType::bf16},
                                           {Weights::stored, DType::f16},
                                           {Weights::bf16, DType::bf16},
                                           {Weights::bf16, DType::f32},
                                           {Weights::int8, DType::bf16},
                                           {Weights::int4, DType::f32},
                                           {Weights::int4_zero, DType::f16}}};

/// One tensor as a backend's matrix.
template <class B>
typename B::Matrix one_matrix(B& backend, const finteam::RawTensor& raw, Weights weights = Weights::stored) {
  return backend.matrix(std::span(&raw, 1), finteam::Join::stacked, weights, std::pmr::get_default_resource());
}

/// One tensor as a backend's vector.
template <class B>
auto one_vector(B& backend, const finteam::RawTensor& raw) {
  return backend.vector(std::span(&raw, 1), std::pmr::get_default_resource());
}

/// y (+)= x wᵀ
template <class B>
void product(B& backend, finteam::MatrixView<const float> x, const typename B::Matrix& w, finteam::Write write,
             finteam::MatrixView<float> y) {
  auto in = backend.input(x.extent(0), x.extent(1), std::pmr::get_default_resource());
  backend.prepare(x, w, in);
  backend.matmul(in, w, write, y);
}

inline constexpr std::array activations{finteam::Activation{},
                                        finteam::Activation{.kind = finteam::Activation::Kind::gelu_tanh},
                                        finteam::Activation{finteam::Activation::Kind::clamped_silu, 1.702F, 0.5F}};

/// Runs every op on the batch's rows of the case; each output has batch.count rows. Where activations are rounded, the
/// outputs from "normed" on may differ between backends: a norm's last bit decides which way.
template <class B>
std::vector<Output> run(B& backend, const Shape& s, Batch batch, Kept how, std::uint64_t seed) {
  std::vector<Output> outputs;
  auto* memory = std::pmr::get_default_resource();
  const auto part = [&](std::vector<float> all, index_t width) {
    return std::vector<float>(all.begin() + batch.first * width, all.begin() + (batch.first + batch.count) * width);
  };
  const auto input = [&](index_t width, std::uint64_t salt) {
    return part(inputs::values(s.rows * width, seed + salt), width);
  };
  const auto keep = [&](std::string name, std::vector<float> v) { outputs.push_back({std::move(name), std::move(v)}); };

  const inputs::File weight({s.n, s.d}, how.dtype, seed + 1), scale({s.d}, how.dtype, seed + 2);
  const auto w = one_matrix(backend, weight.raw(), how.weights);
  auto norm = one_vector(backend, scale.raw());

  std::vector<std::int32_t> tokens;
  for (index_t t = 0; t < batch.count; ++t) tokens.push_back(static_cast<std::int32_t>((batch.first + t) * 7 % s.n));
  std::vector<float> y(static_cast<std::size_t>(batch.count * s.d));
  backend.embed(w, tokens, matrix(y, s.d));
  keep("embed", y);
  backend.embed(w, tokens, matrix(y, s.d), {.scale = 1.75F});
  keep("embed, scaled", y);

  std::vector<float> x = input(s.d, 3);
  backend.rms_norm(matrix(x, s.d), norm.view(), 1e-5F, matrix(y, s.d));
  keep("rms_norm", y);
  y = input(s.d, 18);
  backend.add_rms_norm(matrix(x, s.d), norm.view(), 1e-5F, matrix(y, s.d));
  keep("add_rms_norm", y);
  y = input(s.d, 18);
  backend.add_bias(norm.view(), matrix(y, s.d), {.scale = 0.5F});
  keep("add_bias", y);
  for (float& v : y) v *= 3;
  backend.soft_cap(2.5F, matrix(y, s.d));
  keep("soft_cap", y);

  std::vector<float> z(static_cast<std::size_t>(batch.count * s.n), 7.0F);
  product(backend, matrix(x, s.d), w, finteam::Write::overwrite, matrix(z, s.n));
  keep("matmul", z);
  z = input(s.n, 4);
  product(backend, matrix(x, s.d), w, finteam::Write::accumulate, matrix(z, s.n));
  keep("matmul, accumulating", z);
  std::vector<std::int32_t> some;
  std::vector<float> weight_of;
  for (index_t t = 0; t < batch.count; ++t) {
    if ((batch.first + t) % 3 == 1) continue;
    some.push_back(static_cast<std::int32_t>(t));
    weight_of.push_back(0.75F + static_cast<float>(batch.first + t) / 16);
  }
  if (!some.empty()) {
    const finteam::Chosen chosen{some, weight_of, 0.5F};
    auto chosen_in = backend.input(batch.count, s.d, memory);
    backend.prepare(matrix(x, s.d), w, chosen_in, chosen);
    backend.matmul(chosen_in, w, finteam::Write::accumulate, matrix(z, s.n), chosen);
  }
  keep("matmul, accumulating chosen rows", z);

  const inputs::File gate({s.f, s.d}, how.dtype, seed + 11), up({s.f, s.d}, how.dtype, seed + 12);
  const std::array<finteam::RawTensor, 2> pair{gate.raw(), up.raw()};
  const auto gate_up = backend.matrix(pair, finteam::Join::paired, how.weights, memory);
  auto in = backend.input(batch.count, s.d, memory);
  std::vector<float> product_of(static_cast<std::size_t>(batch.count * s.f), 7.0F);
  backend.prepare(matrix(x, s.d), gate_up, in);
  std::vector<float> plus = input(2 * s.f, 13);
  for (const finteam::Activation& activation : activations) {
    const std::string kind = ", " + std::to_string(static_cast<int>(activation.kind));
    backend.matmul_gated(in, gate_up, activation, {}, matrix(product_of, s.f));
    keep("matmul_gated" + kind, product_of);
    backend.matmul_gated(in, gate_up, activation, matrix(plus, 2 * s.f), matrix(product_of, s.f));
    keep("matmul_gated" + kind + ", with more", product_of);
  }
  // one of them on the rows' later elements, where a format has no groups
  const finteam::index_t skip = is_quantised(format_of(how.weights, pair)) || s.d < 3 ? 0 : 2;
  const inputs::File late({s.n, s.d - skip}, how.dtype, seed + 14);
  const auto late_w = one_matrix(backend, late.raw(), how.weights),
             gate_w = one_matrix(backend, gate.raw(), how.weights);
  std::vector<float> later = input(s.n, 15), beside(static_cast<std::size_t>(batch.count * s.f), 7.0F);
  const std::array<finteam::Product<B>, 2> products{
      {{&in, &late_w, finteam::Write::accumulate, matrix(later, s.n), {.scale = 0.5F}, skip},
       {&in, &gate_w, finteam::Write::overwrite, matrix(beside, s.f)}}};
  backend.matmul(products);
  keep("matmul, several", later);
  keep("matmul, several, the last", beside);
  std::vector<float> gates = input(s.f, 16), ups = input(s.f, 17);
  for (const finteam::Activation& activation : activations) {
    backend.gated(matrix(gates, s.f), matrix(ups, s.f), activation, matrix(product_of, s.f));
    keep("gated, " + std::to_string(static_cast<int>(activation.kind)), product_of);
  }
  backend.gated(matrix(gates, s.f), matrix(ups, s.f), {}, matrix(gates, s.f));
  keep("gated, in place", gates);
  const std::array<finteam::RawTensor, 3> stack{gate.raw(), weight.raw(), up.raw()};
  const auto stacked = backend.matrix(stack, finteam::Join::stacked, how.weights, memory);
  std::vector<float> three(static_cast<std::size_t>(batch.count * (2 * s.f + s.n)));
  backend.matmul(in, stacked, finteam::Write::overwrite, matrix(three, 2 * s.f + s.n));
  keep("matmul, stacked", three);

  std::vector<float> cosine = input(s.e / 2, 5), sine = input(s.e / 2, 6), q = input(s.h * s.e, 7);
  std::vector<float> rotated = q;
  backend.rope(matrix(cosine, s.e / 2), matrix(sine, s.e / 2), heads(rotated, s.h, s.e));
  keep("rope", rotated);
  const index_t part_of = std::max<index_t>(s.e / 4, 1);
  const finteam::MatrixView<const float> less_cosine(cosine.data(), {batch.count, part_of}, {s.e / 2, 1}),
      less_sine(sine.data(), {batch.count, part_of}, {s.e / 2, 1});
  backend.rope(less_cosine, less_sine, heads(rotated, s.h, s.e));
  keep("rope, in part", rotated);
  const inputs::File head_scale({s.e}, how.dtype, seed + 19);
  auto head_norm = one_vector(backend, head_scale.raw());
  backend.norm_heads(head_norm.view(), 1e-5F, heads(rotated, s.h, s.e));
  keep("norm_heads", rotated);

  for (const finteam::CacheFormat format : cache_formats) {
    Cache cache(format, s.rows, s.g, s.e, {0, 31, 32, 33, 63, 64, 65, 7});
    cache.fill(seed + 8);
    const std::span<const finteam::Site> sites(cache.sites.data() + batch.first, static_cast<std::size_t>(batch.count));
    std::vector<float> k = input(s.g * s.e, 9), v = input(s.g * s.e, 10);
    backend.cache_write(sites, heads(k, s.g, s.e), heads(v, s.g, s.e), cache.layer());
    std::vector<float> written;
    for (const auto& site : sites) {
      const finteam::FpEnvironment environment;
      for (index_t i = 0; i < s.g * s.e; ++i) {
        const auto page = cache.page(site, site.position, i / s.e);
        written.push_back(page.key(Cache::slot(site.position), i % s.e));
        written.push_back(page.value(Cache::slot(site.position), i % s.e));
      }
    }
    keep("cache_write " + std::string(name(format)), written);

    std::vector<float> attended(q.size(), 7.0F);
    backend.attention(sites, heads(q, s.h, s.e), cache.layer(), {.scale = 0.3F}, heads(attended, s.h, s.e));
    keep("attention " + std::string(name(format)), attended);
    const finteam::AttentionRule<> window{.scale = 0.3F, .window = 20};
    backend.attention(sites, heads(q, s.h, s.e), cache.layer(), window, heads(attended, s.h, s.e));
    keep("attention " + std::string(name(format)) + ", a window", attended);
    const std::vector<float> sinks = inputs::values(s.h, seed + 20);
    const finteam::AttentionRule<> sunk{.scale = 0.3F, .window = 40, .cap = 0.75F, .sinks = {sinks.data(), {s.h}}};
    backend.attention(sites, heads(q, s.h, s.e), cache.layer(), sunk, heads(attended, s.h, s.e));
    keep("attention " + std::string(name(format)) + ", a window, a cap and sinks", attended);
  }

  backend.prepare_normed(matrix(x, s.d), norm.view(), 1e-5F, stacked, in);
  backend.matmul(in, stacked, finteam::Write::overwrite, matrix(three, 2 * s.f + s.n));
  keep("normed", three);
  return outputs;
}

/// Shapes with and without tails in every width.
inline const std::vector<Shape>& shapes() {
  static const std::vector<Shape> all = {
      {1, 64, 128, 4, 2, 32, 48},
      {2, 33, 17, 2, 1, 6, 17},
      {3, 96, 40, 6, 2, 16, 65},
      {7, 50, 31, 3, 3, 10, 100},
      {9, 129, 64, 8, 2, 64, 160},
      {19, 160, 100, 4, 4, 34, 31},
      {8, 16, 16, 2, 1, 128, 16},
      {4, 1, 1, 1, 1, 2, 1},
      {3, 8, 8, 4, 2, 590, 8},
      {4, 8, 8, 27, 1, 18, 8},
      // more panels than one block of a product of many rows, and an odd number of them
      {13, 64, 40, 2, 1, 16, 7400}};
  return all;
}

}  // namespace op_cases
