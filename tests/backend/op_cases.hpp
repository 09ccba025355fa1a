// Every op of a backend on one set of shapes and pseudo-random inputs, as a list of named outputs. The tests compare
// such lists between backends, executors and batches; op_hash.cpp hashes one.
#pragma once

#include <finteam/backend/backend.hpp>

#include "inputs.hpp"

namespace op_cases {

using finteam::DType;
using finteam::index_t;
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

/// A cache of `rows` sequences whose pages lie scattered, filled to `length` with random keys and values, NaN
/// elsewhere.
struct Cache {
  static constexpr index_t pages_each = 3;
  finteam::Tensor<float, 4> k, v;
  std::vector<std::int32_t> pages;
  std::vector<finteam::Site> sites;

  Cache(index_t rows, index_t g, index_t e, std::vector<std::int32_t> positions)
      : k({rows * pages_each, g, e, finteam::page_tokens}), v({rows * pages_each, g, finteam::page_tokens, e}) {
    for (index_t i = 0; i < k.size(); ++i) k.data()[i] = v.data()[i] = std::bit_cast<float>(0x7FC00000U);
    for (index_t r = 0; r < rows; ++r) {
      for (index_t p = 0; p < pages_each; ++p) pages.push_back(static_cast<std::int32_t>(p * rows + (r + p) % rows));
    }
    for (index_t r = 0; r < rows; ++r) {
      const auto at = static_cast<std::size_t>(r);
      sites.push_back({pages.data() + r * pages_each, positions[at % positions.size()]});
    }
  }
  Cache(const Cache&) = delete;
  finteam::CacheLayer<Host> layer() { return {k.view(), v.view()}; }

  /// Fills every row's sequence up to and with its position, by plain stores.
  void fill(std::uint64_t seed) {
    inputs::Random random{seed};
    for (const auto& site : sites) {
      for (index_t p = 0; p <= site.position; ++p) {
        const index_t page = site.pages[p / finteam::page_tokens], slot = p % finteam::page_tokens;
        for (index_t g = 0; g < k.extent(1); ++g) {
          for (index_t i = 0; i < k.extent(2); ++i) {
            k.view()(page, g, i, slot) = random.value();
            v.view()(page, g, slot, i) = random.value();
          }
        }
      }
    }
  }
};

/// Runs every op on the batch's rows of the case; each output has batch.count rows.
template <class B>
std::vector<Output> run(B& backend, const Shape& s, Batch batch, DType dtype, std::uint64_t seed) {
  std::vector<Output> outputs;
  auto* memory = std::pmr::get_default_resource();
  const auto part = [&](std::vector<float> all, index_t width) {
    return std::vector<float>(all.begin() + batch.first * width, all.begin() + (batch.first + batch.count) * width);
  };
  const auto input = [&](index_t width, std::uint64_t salt) {
    return part(inputs::values(s.rows * width, seed + salt), width);
  };
  const auto keep = [&](std::string name, std::vector<float> v) { outputs.push_back({std::move(name), std::move(v)}); };

  const inputs::File weight({s.n, s.d}, dtype, seed + 1), scale({s.d}, dtype, seed + 2);
  const auto w = backend.matrix(weight.raw(), memory);
  auto norm = backend.vector(scale.raw(), memory);

  std::vector<std::int32_t> tokens;
  for (index_t t = 0; t < batch.count; ++t) tokens.push_back(static_cast<std::int32_t>((batch.first + t) * 7 % s.n));
  std::vector<float> y(static_cast<std::size_t>(batch.count * s.d));
  backend.embed(w, tokens, matrix(y, s.d));
  keep("embed", y);

  std::vector<float> x = input(s.d, 3);
  backend.rms_norm(matrix(x, s.d), norm.view(), 1e-5F, matrix(y, s.d));
  keep("rms_norm", y);

  std::vector<float> z(static_cast<std::size_t>(batch.count * s.n), 7.0F);
  backend.matmul(matrix(x, s.d), w, finteam::Write::overwrite, matrix(z, s.n));
  keep("matmul", z);
  z = input(s.n, 4);
  backend.matmul(matrix(x, s.d), w, finteam::Write::accumulate, matrix(z, s.n));
  keep("matmul, accumulating", z);

  std::vector<float> cosine = input(s.e / 2, 5), sine = input(s.e / 2, 6), q = input(s.h * s.e, 7);
  std::vector<float> rotated = q;
  backend.rope(matrix(cosine, s.e / 2), matrix(sine, s.e / 2), heads(rotated, s.h, s.e));
  keep("rope", rotated);

  Cache cache(s.rows, s.g, s.e, {0, 31, 32, 33, 63, 64, 65, 7});
  cache.fill(seed + 8);
  const std::span<const finteam::Site> sites(cache.sites.data() + batch.first, static_cast<std::size_t>(batch.count));
  std::vector<float> k = input(s.g * s.e, 9), v = input(s.g * s.e, 10);
  backend.cache_write(sites, heads(k, s.g, s.e), heads(v, s.g, s.e), cache.layer());
  std::vector<float> written;
  for (const auto& site : sites) {
    const index_t page = site.pages[site.position / finteam::page_tokens], slot = site.position % finteam::page_tokens;
    for (index_t i = 0; i < s.g * s.e; ++i) {
      written.push_back(cache.k.view()(page, i / s.e, i % s.e, slot));
      written.push_back(cache.v.view()(page, i / s.e, slot, i % s.e));
    }
  }
  keep("cache_write", written);

  std::vector<float> attended(q.size(), 7.0F);
  backend.attention(sites, heads(q, s.h, s.e), cache.layer(), 0.3F, heads(attended, s.h, s.e));
  keep("attention", attended);

  std::vector<float> gate = input(s.f, 11), up = input(s.f, 12), swiglu(gate.size());
  for (float& value : gate) value *= 4;
  backend.swiglu(matrix(gate, s.f), matrix(up, s.f), matrix(swiglu, s.f));
  keep("swiglu", swiglu);
  return outputs;
}

/// Shapes with and without tails in every width.
inline const std::vector<Shape>& shapes() {
  static const std::vector<Shape> all = {
      {1, 64, 128, 4, 2, 32, 48},  {2, 33, 17, 2, 1, 6, 17},     {3, 96, 40, 6, 2, 16, 65},  {7, 50, 31, 3, 3, 10, 100},
      {9, 129, 64, 8, 2, 64, 160}, {19, 160, 100, 4, 4, 34, 31}, {8, 16, 16, 2, 1, 128, 16}, {4, 1, 1, 1, 1, 2, 1}};
  return all;
}

}  // namespace op_cases
