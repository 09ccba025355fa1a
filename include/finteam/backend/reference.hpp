// The reference backend: plain loops with double accumulators, over weights and activations as each format rounds them.
// It defines every op, and the other backends are tested against it. Not for speed: nothing is packed, no thread is
// used, and ops allocate.
#pragma once

#include <finteam/backend/backend.hpp>
#include <finteam/backend/fp_environment.hpp>

#include <algorithm>
#include <cmath>
#include <memory_resource>
#include <numbers>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// The definition of the ops that `Backend` lists; each sum is taken in double and rounded once, to float.
class Reference {
 public:
  using Space = Host;

  /// A weight [n, k] (paired: two, one after the other), each number as its format has it.
  struct Matrix {
    std::vector<float> values;
    Format format = Format::f32;
    index_t n = 0;
    index_t k = 0;

    [[nodiscard]] index_t rows() const noexcept { return n; }
    [[nodiscard]] index_t cols() const noexcept { return k; }
    [[nodiscard]] float operator()(index_t i, index_t j) const noexcept {
      return values[static_cast<std::size_t>(i * k + j)];
    }
  };

  /// Rows as a format's products read them, each number as it then counts. [rows, k]
  struct Input {
    std::vector<float> values;
    index_t k = 0;

    [[nodiscard]] index_t rows() const noexcept { return k == 0 ? 0 : static_cast<index_t>(values.size()) / k; }
    [[nodiscard]] float operator()(index_t t, index_t j) const noexcept {
      return values[static_cast<std::size_t>(t * k + j)];
    }
  };

  /// Rows are computed alike whatever they are, and at once.
  void begin(RowKind) const noexcept {}
  void pace() const noexcept {}

  /// Throws Error(mismatch) unless the parts join.
  [[nodiscard]] Matrix matrix(std::span<const RawTensor> parts, Join join, Weights weights,
                              std::pmr::memory_resource* memory) const {
    // Only for its checks, its shape and its format.
    const PackedMatrix shape(parts, join, format_of(weights, parts), memory);
    Matrix w{.values = {}, .format = shape.format(), .n = shape.rows(), .k = shape.cols()};
    for (const RawTensor& part : parts) {
      for (index_t i = 0; i < part.size(); ++i) w.values.push_back(part[i]);
    }
    each_group(w.values, w.k, [&](std::span<float> group) { round_weights(w.format, group); });
    return w;
  }

  /// The differences `parts`, stacked, each number as it counts. Throws Error(mismatch) unless they join.
  [[nodiscard]] Matrix delta(std::span<const RawDelta> parts, std::pmr::memory_resource* memory) const {
    const PackedMatrix shape(parts, memory);
    Matrix w{.values = {}, .format = shape.format(), .n = shape.rows(), .k = shape.cols()};
    for (const RawDelta& part : parts) {
      for (index_t i = 0; i < part.n * part.k; ++i) w.values.push_back(part(i / part.k, i % part.k));
    }
    return w;
  }

  /// Bytes of one page of one head.
  [[nodiscard]] static constexpr index_t page_bytes(CacheFormat format, index_t e) noexcept {
    return KvPage::bytes(format, e);
  }

  [[nodiscard]] Input input(index_t, index_t, std::pmr::memory_resource*) const { return {}; }

  /// Throws Error(mismatch) unless each part is [n].
  [[nodiscard]] Tensor<float, 1> vector(std::span<const RawTensor> parts, std::pmr::memory_resource* memory,
                                        float plus = 0) const {
    return detail::float_vector(parts, memory, plus);
  }

  /// An owning tensor of zeros.
  template <class T, std::size_t Rank>
  [[nodiscard]] Tensor<T, Rank> tensor(std::array<index_t, Rank> extents, std::pmr::memory_resource* memory) const {
    return Tensor<T, Rank>(extents, memory);
  }

  /// y[row(t),:] = factor(t) · w[tokens[t],:]
  void embed(const Matrix& w, std::span<const std::int32_t> tokens, MatrixView<float> y,
             const Chosen& chosen = {}) const {
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      const auto row = static_cast<index_t>(t);
      for (index_t i = 0; i < y.extent(1); ++i) y(chosen.row(row), i) = chosen.factor(row) * w(tokens[t], i);
    }
  }

  void fill(float value, MatrixView<float> y) const { detail::fill(value, y); }
  void copy(MatrixView<const float> x, MatrixView<float> y) const { detail::copy(x, y); }
  void from_host(MatrixView<const float> x, MatrixView<float> y) const { detail::copy(x, y); }
  void to_host(MatrixView<const float> x, MatrixView<float> y) const { detail::copy(x, y); }

  /// y[row(i),:] += factor(i) · bias
  void add_bias(VectorView<const float> bias, MatrixView<float> y, const Chosen& chosen = {}) const {
    const FpEnvironment environment;
    for (index_t i = 0; i < chosen.count(y.extent(0)); ++i) {
      for (index_t j = 0; j < y.extent(1); ++j) {
        float& to = y(chosen.row(i), j);
        to = static_cast<float>(static_cast<double>(to) +
                                static_cast<double>(chosen.factor(i)) * static_cast<double>(bias(j)));
      }
    }
  }
  /// y = cap · tanh(y / cap)
  void soft_cap(float cap, MatrixView<float> y, const Chosen& chosen = {}) const {
    const FpEnvironment environment;
    for (index_t t = 0; t < chosen.count(y.extent(0)); ++t) {
      for (index_t i = 0; i < y.extent(1); ++i) {
        float& to = y(chosen.row(t), i);
        to = static_cast<float>(capped(static_cast<double>(to), cap));
      }
    }
  }

  /// y[t,i] = x[t,i] · s[i] / sqrt(mean_i x[t,i]² + eps)
  void rms_norm(MatrixView<const float> x, const RowScales<Host>& s, float eps, MatrixView<float> y) const {
    norm(x, s, eps, Write::overwrite, y);
  }
  /// y += that
  void add_rms_norm(MatrixView<const float> x, const RowScales<Host>& s, float eps, MatrixView<float> y) const {
    norm(x, s, eps, Write::accumulate, y);
  }
  /// x[t,h,:] = that of each head
  void norm_heads(VectorView<const float> scale, float eps, TensorView<float, 3> x) const {
    for (index_t t = 0; t < x.extent(0); ++t) {
      const MatrixView<float> heads(&x(t, 0, 0), {x.extent(1), x.extent(2)}, {x.stride(1), 1});
      rms_norm(heads, scale, eps, heads);
    }
  }

  /// input = x[row(t),:], as products with w's format read it.
  void prepare(MatrixView<const float> x, const Matrix& w, Input& input, const Chosen& chosen = {}) const {
    const FpEnvironment environment;
    input.k = x.extent(1);
    input.values.clear();
    for (index_t t = 0; t < chosen.count(x.extent(0)); ++t) {
      const float* row = &x(chosen.row(t), 0);
      input.values.insert(input.values.end(), row, row + input.k);
    }
    each_group(input.values, input.k, [&](std::span<float> group) { round_activations(w.format, group); });
  }

  /// input = rms_norm(x)[row(t),:]
  void prepare_normed(MatrixView<const float> x, const RowScales<Host>& s, float eps, const Matrix& w, Input& input,
                      const Chosen& chosen = {}) const {
    std::vector<float> y(static_cast<std::size_t>(x.size()));
    const MatrixView<float> normed(y.data(), x.extents());
    rms_norm(x, s, eps, normed);
    prepare(normed, w, input, chosen);
  }

  /// y[row(t),i] (+)= factor(t) · Σ_j input[t,j] · w[i,j]
  void matmul(const Input& input, const Matrix& w, Write write, MatrixView<float> y, const Chosen& chosen = {}) const {
    multiply({&input, &w, write, y, chosen});
  }

  /// Several of these, one after the other.
  void matmul(std::span<const Product<Reference>> products) const {
    for (const Product<Reference>& p : products) multiply(p);
  }

  /// y[t,i] = gated(plus[t,i] + Σ_j input[t,j] · gate[i,j], plus[t,n+i] + Σ_j input[t,j] · up[i,j])
  void matmul_gated(const Input& input, const Matrix& w, const Activation& activation, MatrixView<const float> plus,
                    MatrixView<float> y) const {
    const FpEnvironment environment;
    const auto more = [&](index_t t, index_t i) { return plus.size() == 0 ? 0.0 : static_cast<double>(plus(t, i)); };
    for (index_t t = 0; t < input.rows(); ++t) {
      for (index_t i = 0; i < w.n; ++i) {
        const double gate = product(input, w, t, i) + more(t, i);
        const double up = product(input, w, t, w.n + i) + more(t, w.n + i);
        y(t, i) = static_cast<float>(gated(gate, up, activation));
      }
    }
  }

  /// y[t,i] = gated(gate[t,i], up[t,i])
  void gated(MatrixView<const float> gate, MatrixView<const float> up, const Activation& activation,
             MatrixView<float> y) const {
    const FpEnvironment environment;
    for (index_t t = 0; t < y.extent(0); ++t) {
      for (index_t i = 0; i < y.extent(1); ++i) {
        y(t, i) = static_cast<float>(gated(static_cast<double>(gate(t, i)), static_cast<double>(up(t, i)), activation));
      }
    }
  }

  /// cosine[t,i], sine[t,i] = factor · cos, sin(position[t] · frequency[i])
  void angles(VectorView<const float> frequency, VectorView<const float> long_frequency, float factor,
              std::span<const Site> sites, MatrixView<float> cosine, MatrixView<float> sine) const noexcept {
    detail::angles(frequency, long_frequency, factor, sites, cosine, sine);
  }

  /// The pair (a, b) = (x[i], x[i + r/2]) of every head becomes (a·cos - b·sin, b·cos + a·sin).
  void rope(MatrixView<const float> cosine, MatrixView<const float> sine, TensorView<float, 3> x) const {
    const FpEnvironment environment;
    const index_t half = cosine.extent(1);
    for (index_t t = 0; t < x.extent(0); ++t) {
      for (index_t h = 0; h < x.extent(1); ++h) {
        for (index_t i = 0; i < half; ++i) {
          const double a = x(t, h, i), b = x(t, h, i + half), c = cosine(t, i), s = sine(t, i);
          x(t, h, i) = static_cast<float>(std::fma(-b, s, a * c));
          x(t, h, i + half) = static_cast<float>(std::fma(a, s, b * c));
        }
      }
    }
  }

  /// Writes row t's keys and values at sites[t].
  void cache_write(std::span<const Site> sites, TensorView<const float, 3> k, TensorView<const float, 3> v,
                   CacheLayer<Host> cache) const {
    const FpEnvironment environment;
    for (index_t t = 0; t < k.extent(0); ++t) {
      const Site& site = sites[static_cast<std::size_t>(t)];
      for (index_t g = 0; g < k.extent(1); ++g) {
        cache.page(site.pages[site.position / page_tokens], g)
            .write(site.position % page_tokens, &k(t, g, 0), &v(t, g, 0));
      }
    }
  }

  void cache_copy(CacheLayer<Host> cache, std::int32_t from, std::int32_t to) const {
    detail::copy_page(cache, from, to);
  }

  /// y[t,h,:] = Σ_p softmax_p(scale · q[t,h,:]·k[p,h',:]) v[p,h',:]
  void attention(std::span<const Site> sites, TensorView<const float, 3> q, CacheLayer<Host> cache,
                 const AttentionRule<>& rule, TensorView<float, 3> y) const {
    const FpEnvironment environment;
    for (index_t t = 0; t < q.extent(0); ++t) {
      for (index_t h = 0; h < q.extent(1); ++h) {
        attend(sites[static_cast<std::size_t>(t)], q.row(t).row(h), cache, h * cache.g() / q.extent(1), rule,
               rule.sinks.size() == 0 ? nullptr : &rule.sinks(h), y.row(t).row(h));
      }
    }
  }

 private:
  /// y (+)= rms_norm(x)
  static void norm(MatrixView<const float> x, const RowScales<Host>& s, float eps, Write write, MatrixView<float> y) {
    const FpEnvironment environment;
    for (index_t t = 0; t < x.extent(0); ++t) {
      double squares = 0;
      for (index_t i = 0; i < x.extent(1); ++i) {
        const double v = x(t, i);
        squares = std::fma(v, v, squares);
      }
      const double scale = 1 / std::sqrt(squares / static_cast<double>(x.extent(1)) + static_cast<double>(eps));
      for (index_t i = 0; i < x.extent(1); ++i) {
        const double before = write == Write::overwrite ? 0 : static_cast<double>(y(t, i));
        y(t, i) =
            static_cast<float>(std::fma(static_cast<double>(x(t, i)) * scale, static_cast<double>(s.of(t)[i]), before));
      }
    }
  }
  static double capped(double x, float cap) noexcept {
    return static_cast<double>(cap) * std::tanh(x / static_cast<double>(cap));
  }
  /// Activation's formulas.
  static double gated(double gate, double up, const Activation& activation) noexcept {
    switch (activation.kind) {
      case Activation::Kind::silu: break;
      case Activation::Kind::gelu_tanh: {
        constexpr double share = std::numbers::sqrt2 * std::numbers::inv_sqrtpi;
        return gate / 2 * (1 + std::tanh(share * std::fma(0.044715 * gate * gate, gate, gate))) * up;
      }
      case Activation::Kind::clamped_silu: {
        const double limit = static_cast<double>(activation.limit), z = gate > limit ? limit : gate;
        const double u = up > limit ? limit : up < -limit ? -limit : up;
        return z / (1 + std::exp(static_cast<double>(-activation.alpha) * z)) * (u + 1);
      }
    }
    return gate / (1 + std::exp(-gate)) * up;
  }

  /// f over the groups of 32 of every row of k.
  template <class F>
  static void each_group(std::span<float> values, index_t k, F&& f) {
    for (std::size_t row = 0; row < values.size(); row += static_cast<std::size_t>(k)) {
      for (index_t j = 0; j < k; j += group_inputs) {
        f(values.subspan(row + static_cast<std::size_t>(j), static_cast<std::size_t>(std::min(group_inputs, k - j))));
      }
    }
  }
  static void round_weights(Format format, std::span<float> w) {
    const WeightGroup group = is_quantised(format) ? quantise_weights(format, w) : WeightGroup{};
    for (std::size_t j = 0; j < w.size(); ++j) {
      if (is_quantised(format)) w[j] = group[static_cast<index_t>(j)];
      if (format == Format::bf16) w[j] = to_float(to_bf16(w[j]));
    }
  }
  static void round_activations(Format format, std::span<float> x) {
    const ActivationGroup group = is_quantised(format) ? quantise_activations(x) : ActivationGroup{};
    for (std::size_t j = 0; j < x.size(); ++j) {
      if (is_quantised(format)) x[j] = group.scale * static_cast<float>(group.q[j]);
      if (format == Format::bf16) x[j] = to_float(to_bf16(x[j]));
    }
  }
  /// Σ_j input[t, first + j] · w[i,j]
  static double product(const Input& input, const Matrix& w, index_t t, index_t i, index_t first = 0) {
    double sum = 0;
    for (index_t j = 0; j < w.k; ++j) {
      sum = std::fma(static_cast<double>(input(t, first + j)), static_cast<double>(w(i, j)), sum);
    }
    return sum;
  }
  static void multiply(const Product<Reference>& p) {
    const FpEnvironment environment;
    for (index_t t = 0; t < p.input->rows(); ++t) {
      for (index_t i = 0; i < p.w->n; ++i) {
        float& to = p.y(p.chosen.row(t), i);
        const double before = p.write == Write::accumulate ? static_cast<double>(to) : 0;
        const double sum = product(*p.input, *p.w, t, i, p.first);
        to = static_cast<float>(before + static_cast<double>(p.chosen.factor(t)) * sum);
      }
    }
  }

  static void attend(const Site& site, VectorView<const float> q, CacheLayer<Host> cache, index_t g,
                     const AttentionRule<>& rule, const float* sink, VectorView<float> y) {
    const auto first = static_cast<std::size_t>(rule.first(site.position));
    std::vector<double> weights(static_cast<std::size_t>(site.position) + 1 - first);
    std::vector<float> scaled;
    for (const float x : q.span()) scaled.push_back(x * rule.scale);
    each_group(scaled, cache.e, [&](std::span<float> group) { round_activations(key_format(cache.format), group); });
    const auto at = [&](std::size_t p) { return cache.page(site.pages[p / page_tokens], g); };
    const auto slot = [](std::size_t p) { return static_cast<index_t>(p) % page_tokens; };
    for (std::size_t p = 0; p < weights.size(); ++p) {
      double dot = 0;
      for (index_t i = 0; i < cache.e; ++i) {
        const double element = scaled[static_cast<std::size_t>(i)];
        dot = std::fma(element, static_cast<double>(at(first + p).key(slot(first + p), i)), dot);
      }
      weights[p] = rule.cap == 0 ? dot : capped(dot, rule.cap);
    }
    double greatest = *std::max_element(weights.begin(), weights.end());
    if (sink != nullptr) greatest = std::max(greatest, static_cast<double>(*sink));
    double total = sink != nullptr ? std::exp(static_cast<double>(*sink) - greatest) : 0;
    for (double& weight : weights) total += weight = std::exp(weight - greatest);
    for (index_t i = 0; i < y.extent(0); ++i) {
      double sum = 0;
      for (std::size_t p = 0; p < weights.size(); ++p) {
        sum = std::fma(weights[p], static_cast<double>(at(first + p).value(slot(first + p), i)), sum);
      }
      y(i) = static_cast<float>(sum / total);
    }
  }
};

static_assert(Backend<Reference>);

}  // namespace finteam::inline FINTEAM_ABI
