// How fast is each product of the model on a GPU: of a few generated rows beside reading its weights, of a prompt's
// rows beside their operations? Copies take turns, so that no cache holds them; of generated rows, many products are
// one graph, as in a step.
#include "gpu.hpp"
#include "gpu_weights.hpp"
#include "harness.hpp"

#include <finteam/backend/reference.hpp>

#include <cmath>

namespace bench {

using namespace finteam;

namespace {

struct Shape {
  std::string name;
  Join join;
  std::vector<std::array<index_t, 2>> parts;  ///< [n, k] of each

  [[nodiscard]] index_t n() const {
    index_t sum = 0;
    for (const auto& part : parts) sum += part[0];
    return sum;
  }
  [[nodiscard]] index_t k() const { return parts[0][1]; }
  /// Columns of the result.
  [[nodiscard]] index_t width() const { return join == Join::paired ? parts[0][0] : n(); }
};

std::vector<Shape> shapes_of(const Config& c) {
  return {{"qkv_proj", Join::stacked, {{c.h * c.e, c.d}, {c.g * c.e, c.d}, {c.g * c.e, c.d}}},
          {"o_proj", Join::stacked, {{c.d, c.h * c.e}}},
          {"gate_up_proj", Join::paired, {{c.f, c.d}, {c.f, c.d}}},
          {"down_proj", Join::stacked, {{c.d, c.f}}},
          {"lm_head", Join::stacked, {{c.v, c.d}}}};
}

std::vector<RawTensor> tensors(const std::vector<std::array<index_t, 2>>& parts) {
  std::vector<RawTensor> all;
  for (const auto& part : parts) all.push_back({nullptr, DType::bf16, part});
  return all;
}

/// y = a product of x; for the library's backends.
template <class B>
void multiply(B& b, const typename B::Input& input, const typename B::Matrix& w, Join join,
              MatrixView<float, typename B::Space> y) {
  if (join == Join::paired) {
    b.matmul_gated(input, w, Activation{}, {}, y);
  } else {
    b.matmul(input, w, Write::overwrite, y);
  }
}

/// One product, in as many copies as no cache holds, and rows for it.
class ProductOnGpu {
 public:
  ProductOnGpu(const GpuRun& run, const Shape& shape, Weights weights, index_t most_rows)
      : shape_(shape),
        weights_(weights),
        b_(CudaOptions{.device = run.options().device, .executor = run.pool()}),
        host_x_({most_rows, shape.k()}),
        x_(b_.tensor<float, 2>({most_rows, shape.k()}, nullptr)),
        y_(b_.tensor<float, 2>({most_rows, shape.width()}, nullptr)),
        input_(b_.input(most_rows, shape.k(), nullptr)) {
    const std::vector<RawTensor> raw = tensors(shape.parts);
    b_.copy_all();
    do {
      copies_.push_back(b_.matrix(raw, shape.join, weights, nullptr));
    } while (b_.bytes() < run.much(cold_bytes));
    const std::array extents{most_rows, shape.k()};
    const RawTensor x{nullptr, DType::bf16, extents};
    const RandomTensors random({&x, 1}, 11, 0.0F, run.pool());
    for (index_t i = 0; i < host_x_.size(); ++i) host_x_.data()[i] = 50 * random.get()[0][i];  // of deviation 1
    const auto* const from = host_x_.data();
    finteam::detail::check(
        finteam::detail::cuda::copy_in(b_.context()->get(), x_.data(), from, 4 * static_cast<std::size_t>(x_.size())),
        "rows to be copied");
    wait();
  }

  /// Bytes of one copy.
  [[nodiscard]] double bytes() const { return static_cast<double>(copies_.front().bytes()); }
  [[nodiscard]] index_t copies() const { return static_cast<index_t>(copies_.size()); }

  /// Rows, as products read them; then what follows can be timed.
  void prepare(RowKind kind, index_t rows) {
    kind_ = kind;
    rows_ = rows;
    b_.begin(kind);
    b_.prepare(x(), copies_.front(), input_);
    wait();
  }
  /// `turns` products by each copy.
  void record(index_t turns) {
    b_.begin(kind_);
    for (index_t i = 0; i < turns * copies(); ++i) {
      multiply<Cuda>(b_, input_, copies_[static_cast<std::size_t>(i % copies())], shape_.join,
                     y_.view().rows(0, rows_));
    }
  }
  void wait() {
    float number;
    b_.to_host(MatrixView<const float, Device>(y_.data(), {1, 1}), {&number, {1, 1}});
  }

  /// Some outputs of some rows beside the reference backend's.
  [[nodiscard]] Verdict check(bool together) {
    record(1);
    Tensor<float, 2> y({rows_, shape_.width()});
    b_.to_host(std::as_const(y_).view().rows(0, rows_), y.view());
    const auto outputs = some_of(shape_.parts[0][0]), rows = some_of(rows_);
    const std::vector<float> expected = reference(outputs, rows);
    std::vector<float> found;
    for (const index_t r : rows) {
      for (const index_t i : outputs) found.push_back(y.view()(r, i));
    }
    // Sums in float instead of double; a prompt's rows meet integers as bf16 numbers, the reference's as bytes, each
    // off by up to 1/254 of its group's greatest. One wrong output of them all is 0.05 in the root mean square.
    const bool rounded = kind_ == RowKind::prompt && weights_ != Weights::bf16;
    Verdict verdict{.against = "the reference backend on " + std::to_string(outputs.size()) + " outputs of " +
                               std::to_string(rows.size()) + " rows, " +
                               (rounded ? "root mean square" : "the greatest over their size"),
                    .error = rounded ? mean_error(found, expected) : greatest_error(found, expected),
                    .allowed = rounded ? 0.03 : 0.002};
    if (together) verdict.same = is_invariant(y);
    return verdict;
  }

 private:
  static constexpr double cold_bytes = 1 << 29;  // ten times what the largest cache holds

  [[nodiscard]] MatrixView<const float, Device> x() const { return x_.view().rows(0, rows_); }

  /// The first, the last and some between.
  [[nodiscard]] static std::vector<index_t> some_of(index_t count) {
    constexpr index_t some = 24;
    std::vector<index_t> all;
    for (index_t i = 0; i < std::min(some, count); ++i) {
      all.push_back(count <= some ? i : i * (count - 1) / (some - 1));
    }
    return all;
  }

  /// Of the first part (of both of a pair): the outputs' rows of the matrix, and those rows of x.
  [[nodiscard]] std::vector<float> reference(const std::vector<index_t>& outputs, const std::vector<index_t>& rows) {
    const index_t k = shape_.k(), n = static_cast<index_t>(outputs.size()), t = static_cast<index_t>(rows.size());
    const std::vector<RawTensor> raw = tensors(shape_.parts);
    const RandomTensors all(raw, Gpu::shape_seed(raw), 0.0F, b_.executor());
    const std::array extents{n, k};
    std::vector<std::vector<bf16>> picked(shape_.join == Join::paired ? 2 : 1);
    std::vector<RawTensor> parts;
    for (std::size_t p = 0; p < picked.size(); ++p) {
      for (const index_t i : outputs) {
        const auto* const from = reinterpret_cast<const bf16*>(all.get()[p].data) + i * k;
        picked[p].insert(picked[p].end(), from, from + k);
      }
      parts.push_back({reinterpret_cast<const std::byte*>(picked[p].data()), DType::bf16, extents});
    }
    Reference b;
    const auto w = b.matrix(parts, shape_.join, weights_, std::pmr::get_default_resource());
    Tensor<float, 2> some_x({t, k}), y({t, n});
    for (index_t r = 0; r < t; ++r) {
      std::copy_n(&host_x_.view()(rows[static_cast<std::size_t>(r)], 0), k, &some_x.view()(r, 0));
    }
    auto input = b.input(t, k, std::pmr::get_default_resource());
    b.prepare(some_x.view(), w, input);
    multiply<Reference>(b, input, w, shape_.join, y.view());
    return {y.data(), y.data() + y.size()};
  }

  /// Whether the last row alone has the bits that it has among the others.
  [[nodiscard]] bool is_invariant(const Tensor<float, 2>& together) {
    b_.begin(kind_);
    b_.prepare(x().rows(rows_ - 1, 1), copies_.front(), input_);
    multiply<Cuda>(b_, input_, copies_.front(), shape_.join, y_.view().rows(0, 1));
    Tensor<float, 2> alone({1, shape_.width()});
    b_.to_host(std::as_const(y_).view().rows(0, 1), alone.view());
    prepare(kind_, rows_);
    return std::equal(alone.data(), alone.data() + alone.size(), together.data() + (rows_ - 1) * shape_.width());
  }

  using Gpu = RandomWeights<Cuda>;
  Shape shape_;
  Weights weights_;
  Gpu b_;
  Tensor<float, 2> host_x_;
  DeviceTensor<float, 2> x_, y_;
  Cuda::Input input_;
  std::vector<DeviceMatrix> copies_;
  RowKind kind_ = RowKind::generated;
  index_t rows_ = 0;
};

std::string name_of(const Shape& s) { return s.name + " " + std::to_string(s.n()) + "x" + std::to_string(s.k()); }

void ask(GpuRun& run, ProductOnGpu& product, const Shape& shape, const std::string& weights, RowKind kind,
         index_t rows) {
  const bool prompt = kind == RowKind::prompt;
  const double flops = 2.0 * static_cast<double>(shape.n() * shape.k() * rows);
  // Milliseconds a graph, so that its start does not count.
  const double least = run.much(prompt ? 4e12 : 8e9) / (prompt ? flops : product.bytes());
  const auto turns = static_cast<index_t>(std::ceil(least / static_cast<double>(product.copies())));
  product.prepare(kind, rows);
  const std::string name = name_of(shape) + (prompt ? ", prompt" : "");
  run.measure({.work = {.name = name,
                        .weights = weights,
                        .rows = rows,
                        .tokens = static_cast<double>(rows),
                        .bytes = prompt ? 0.0 : product.bytes(),
                        .flops = flops,
                        .steps = static_cast<double>(turns * product.copies()),
                        .with_recording = false,
                        .bar = prompt && weights == "bf16" && rows == 2048 ? 600.0 : 0.0,
                        .more = {{"copies", product.copies()}}},
               .check = [&] { return product.check(rows > 1); },
               .record = [&] { product.record(turns); },
               .run = [&] { product.wait(); }});
}

}  // namespace

void gpu_products(GpuRun& run) {
  for (const std::string& weights : run.options().weights) {
    for (const Shape& shape : shapes_of(run.config())) {
      std::vector<std::pair<RowKind, index_t>> wanted;
      for (const index_t rows : {1, 3, 8, 16, 32}) {
        if (run.wants(name_of(shape), weights, rows)) wanted.emplace_back(RowKind::generated, rows);
      }
      for (const index_t rows :
           {run.positions(512), run.positions(2048)}) {  // nobody asks for the logits of a whole prompt
        if (shape.name == "lm_head") continue;
        if (run.wants(name_of(shape) + ", prompt", weights, rows)) wanted.emplace_back(RowKind::prompt, rows);
      }
      if (wanted.empty()) continue;
      ProductOnGpu product(run, shape, weights_named(weights), wanted.back().second);
      for (const auto& [kind, rows] : wanted) ask(run, product, shape, weights, kind, rows);
    }
  }
}

}  // namespace bench
