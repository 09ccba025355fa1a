// Products that share a launch against those that have one each, bit for bit, and against fewer of them (law 3).
#include <finteam/backend/cuda.hpp>

#include "backend/inputs.hpp"
#include "catch.hpp"
#include "cuda/device_rows.hpp"
#include "random.hpp"

#include <array>
#include <optional>
#include <span>
#include <vector>

using namespace finteam;
using device_rows::Floats;
using device_rows::give;
using device_rows::read_rows;
using device_rows::same_bits;

namespace {

/// What a matrix is kept as: weights of a file's dtype, or a difference.
struct Stored {
  const char* name;
  Weights weights = Weights::stored;
  DType dtype = DType::f32;
  std::optional<Format> delta{};

  [[nodiscard]] bool groups() const { return delta || weights >= Weights::int8; }
};
const std::vector<Stored> stored_kinds{{"f32"},
                                       {"bf16, wide", Weights::stored, DType::bf16},
                                       {"bf16", Weights::bf16},
                                       {"int8", Weights::int8},
                                       {"int1", {}, {}, Format::int1},
                                       {"int2", {}, {}, Format::int2}};

/// [n, k], random.
DeviceMatrix matrix(Cuda& cuda, const Stored& how, index_t n, index_t k, std::uint64_t seed) {
  if (!how.delta) {
    const inputs::File file({n, k}, how.dtype, seed, 0.2F);
    const RawTensor raw = file.raw();
    return cuda.matrix({&raw, 1}, Join::stacked, how.weights, nullptr);
  }
  test::Random random(seed);
  std::vector<std::byte> numbers(static_cast<std::size_t>(n * delta_row_bytes(*how.delta, k)));
  for (std::byte& b : numbers) b = static_cast<std::byte>(random.bits());
  const Floats scales(static_cast<std::size_t>(n), 0.125F + static_cast<float>(seed % 7));
  const RawDelta raw{numbers.data(), reinterpret_cast<const std::byte*>(scales.data()), n, n, k, *how.delta};
  return cuda.delta({&raw, 1}, nullptr);
}

MatrixView<float, Device> columns(MatrixView<float, Device> x, index_t from, index_t n) {
  return {x.data() + from, {x.extent(0), n}, x.strides()};
}

/// Experts of a layer of widths k and Σ n, as add_deltas asks for them: of each, rows of the step and matrices of some
/// of the outputs, which read the inputs from `first` on.
struct SharedLayer {
  static constexpr std::int32_t t = 20;
  struct Part {
    DeviceMatrix w;
    index_t first, outer;
  };
  struct Expert {
    std::vector<std::int32_t> rows;
    Floats weight;
    std::vector<Part> parts;
    Cuda::Input input;

    [[nodiscard]] Chosen chosen(std::size_t most = t) const {
      const std::size_t n = std::min(most, rows.size());
      return {std::span(rows).first(n), std::span(weight).first(n), 0.5F};
    }
  };

  /// rows: of each expert. first: columns before those that the second part of each reads, if w has no groups.
  SharedLayer(Cuda& b, const Stored& how, index_t width, index_t skip, std::span<const index_t> rows)
      : cuda(b), k(width), x(give(b, inputs::values(t * width, 4), t)) {
    std::int32_t next = 0;
    for (std::size_t e = 0; e < rows.size(); ++e) {
      Expert& expert = experts.emplace_back();
      for (index_t r = 0; r < rows[e]; ++r, next = (next + 7) % t) {
        expert.rows.push_back(next);
        expert.weight.push_back(0.25F + static_cast<float>(next) / 8);
      }
      const auto seed = 10 * e + 1;
      expert.parts.push_back({matrix(b, how, n[0], k - skip, seed), 0, 0});
      expert.parts.push_back({matrix(b, how, n[1], k - skip, seed + 1), how.groups() ? 0 : skip, n[0]});
      expert.input = b.input(t, k, nullptr);
    }
  }

  /// y += all of it, of the first `most` rows of experts [from, to), at once.
  Floats together(std::size_t from, std::size_t to, std::size_t most = t) {
    auto y = start();
    std::vector<Product<Cuda>> products;
    for (std::size_t e = from; e < to; ++e) {
      Expert& expert = experts[e];
      cuda.prepare(x.view(), expert.parts.front().w, expert.input, expert.chosen(most));
      for (const Part& p : expert.parts) {
        products.push_back({&expert.input, &p.w, Write::accumulate, columns(y.view(), p.outer, p.w.rows()),
                            expert.chosen(most), p.first});
      }
    }
    cuda.matmul(products);
    return read_rows(cuda, y.view());
  }
  /// The same by a product of its own for each, of an input of its own.
  Floats one_by_one() {
    auto y = start();
    for (Expert& expert : experts) {
      for (const Part& p : expert.parts) {
        cuda.prepare(columns(x.view(), p.first, p.w.cols()), p.w, expert.input, expert.chosen());
        cuda.matmul(expert.input, p.w, Write::accumulate, columns(y.view(), p.outer, p.w.rows()), expert.chosen());
      }
    }
    return read_rows(cuda, y.view());
  }
  DeviceTensor<float, 2> start() { return give(cuda, inputs::values(t * (n[0] + n[1]), 9), t); }

  static constexpr std::array<index_t, 2> n{150, 37};
  Cuda& cuda;
  index_t k;
  DeviceTensor<float, 2> x;
  std::vector<Expert> experts;
};

}  // namespace

TEST_CASE("products that share a launch have the bits of those that have one each", "[cuda][law3]") {
  const Stored how = GENERATE(from_range(stored_kinds));
  // of adapters' second matrices, and beyond what a warp for each tile serves; of many pieces, more than are prepared
  // by the blocks that read them
  const index_t k = GENERATE(values<index_t>({18, 66, 450, 514, 5500}));
  CAPTURE(how.name, k);
  Cuda cuda;
  const std::array<index_t, 4> rows{1, 5, 11, 2};
  SharedLayer layer(cuda, how, k, how.groups() ? 0 : 2, rows);
  CHECK(same_bits(layer.together(0, rows.size()), layer.one_by_one()));
}

TEST_CASE("bits of a row do not depend on the products that share its launch, nor on their rows", "[cuda][law3]") {
  const Stored how = GENERATE(from_range(stored_kinds));
  const index_t k = GENERATE(values<index_t>({16, 600}));
  CAPTURE(how.name, k);
  Cuda cuda;
  const std::array<index_t, 3> rows{3, 9, 1};
  SharedLayer layer(cuda, how, k, 0, rows);
  const Floats all = layer.together(0, rows.size());
  const auto row_of = [](const Floats& y, std::int32_t row) {
    const auto width = static_cast<std::ptrdiff_t>(SharedLayer::n[0] + SharedLayer::n[1]);
    return Floats(y.begin() + row * width, y.begin() + (row + 1) * width);
  };
  for (std::size_t e = 0; e < rows.size(); ++e) {
    const std::int32_t row = layer.experts[e].rows.front();
    CHECK(same_bits(row_of(all, row), row_of(layer.together(e, e + 1, 1), row)));
  }
}

TEST_CASE("products of several formats, of prompts, and of no rows may be asked for at once", "[cuda]") {
  const RowKind kind = GENERATE(RowKind::prompt, RowKind::generated);
  Cuda cuda;
  const index_t k = 96;
  auto x = give(cuda, inputs::values(3 * k, 1), 3);
  std::vector<DeviceMatrix> w;
  std::vector<Cuda::Input> input;
  for (std::size_t i = 0; i < stored_kinds.size(); ++i) {
    w.push_back(matrix(cuda, stored_kinds[i], 20 + static_cast<index_t>(i), k, i));
    input.push_back(cuda.input(3, k, nullptr));
  }
  w.push_back(matrix(cuda, stored_kinds[0], 20, k, 1));  // of no rows
  input.push_back(cuda.input(3, k, nullptr));
  const auto each = [&](auto&& f) {
    std::vector<Floats> all;
    std::vector<DeviceTensor<float, 2>> y;
    cuda.begin(kind);
    for (std::size_t i = 0; i < w.size(); ++i) {
      const index_t t = i < stored_kinds.size() ? 3 : 0;
      y.push_back(cuda.tensor<float, 2>({t, w[i].rows()}, nullptr));
      cuda.prepare(x.view().rows(0, t), w[i], input[i]);
    }
    f(y);
    for (auto& rows : y) {
      if (rows.size() != 0) all.push_back(read_rows(cuda, rows.view()));
    }
    return all;
  };
  const auto together = each([&](auto& y) {
    std::vector<Product<Cuda>> products;
    for (std::size_t i = 0; i < w.size(); ++i) products.push_back({&input[i], &w[i], Write::overwrite, y[i].view()});
    cuda.matmul(products);
    cuda.matmul(std::span<const Product<Cuda>>());
  });
  const auto alone = each([&](auto& y) {
    for (std::size_t i = 0; i < w.size(); ++i) cuda.matmul(input[i], w[i], Write::overwrite, y[i].view());
  });
  for (std::size_t i = 0; i < alone.size(); ++i) {
    CAPTURE(i);
    CHECK(same_bits(together[i], alone[i]));
  }
}

TEST_CASE("a step of products that share launches is one graph, whichever rows they are of", "[cuda]") {
  const Stored how = GENERATE(from_range(stored_kinds));
  CAPTURE(how.name);
  Cuda cuda, fresh;
  const std::array<index_t, 3> rows{1, 2, 1};
  SharedLayer layer(cuda, how, 64, 0, rows), other(fresh, how, 64, 0, rows);
  auto y = layer.start();
  static_cast<void>(read_rows(cuda, y.view()));  // a step that ends
  for (std::int32_t step = 0; step < 4; ++step) {
    CAPTURE(step);
    const auto move = [&](SharedLayer& of) {
      std::int32_t next = 0;
      for (auto& expert : of.experts) {
        for (auto& row : expert.rows) row = (3 * step + next++) % SharedLayer::t;
        for (float& weight : expert.weight) weight += 0.125F;
      }
    };
    move(layer), move(other);
    const Floats before = inputs::values(SharedLayer::t * y.extent(1), 9);
    Floats found(before.size());
    cuda.begin(RowKind::generated);
    cuda.from_host({before.data(), {SharedLayer::t, y.extent(1)}}, y.view());
    std::vector<Product<Cuda>> products;
    for (auto& expert : layer.experts) {
      cuda.prepare(layer.x.view(), expert.parts.front().w, expert.input, expert.chosen());
      for (const auto& p : expert.parts) {
        products.push_back(
            {&expert.input, &p.w, Write::accumulate, columns(y.view(), p.outer, p.w.rows()), expert.chosen()});
      }
    }
    cuda.matmul(products);
    cuda.to_host(y.view(), {found.data(), {SharedLayer::t, y.extent(1)}});
    CHECK(same_bits(found, other.one_by_one()));
    CHECK(cuda.graphs() == (step == 0 ? 0 : 1));
  }
}

TEST_CASE("a prompt's rows have the same bits however many they are", "[cuda][law3]") {
  constexpr index_t n = 256, k = 192, most = 300;
  Cuda b;
  const Stored how = GENERATE(Stored{"bf16", Weights::bf16}, Stored{"int4", Weights::int4});
  const DeviceMatrix w = matrix(b, how, n, k, 11);
  const auto x = give(b, inputs::values(most * k, 12), most);
  auto y = b.tensor<float, 2>({most, n}, nullptr);
  const auto multiply = [&](index_t rows) {
    auto input = b.input(rows, k, nullptr);
    b.begin(RowKind::prompt);
    b.prepare(x.view().rows(0, rows), w, input);
    b.matmul(input, w, Write::overwrite, y.view().rows(0, rows));
    return read_rows(b, y.view().rows(0, rows));
  };
  const Floats all = multiply(most);
  for (const index_t rows : {1, 2, 7, 8, 9, 63, 130}) {
    CAPTURE(how.name, rows);
    CHECK(same_bits(multiply(rows), {all.begin(), all.begin() + rows * n}));
  }
}
