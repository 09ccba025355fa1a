// The CPU backend: vector kernels over packed panels, spread over an executor that the caller may bring.
// No op allocates.
// Not here: the kernels (cpu/), threads (thread_pool.hpp).
#pragma once

#include <finteam/backend/backend.hpp>
#include <finteam/backend/cpu/attention.hpp>
#include <finteam/backend/cpu/elementwise.hpp>
#include <finteam/backend/cpu/matmul.hpp>
#include <finteam/backend/executor.hpp>
#include <finteam/core/packed.hpp>

namespace finteam::inline FINTEAM_ABI {

/// The ops that `Backend` lists, for an xsimd architecture. Light: copy it as you like.
/// The bits of a row's result are the same on any executor, in any batch, and on any Arch that has the same kind of
/// multiply-add (fused or not; for bf16, the same dot product). Each op runs in an FpEnvironment, on every thread that
/// takes part.
template <class Arch = DefaultArch>
class BasicCpu {
 public:
  using Space = Host;
  using Matrix = PackedMatrix;
  using Input = CpuInput<Arch>;

  /// Everything on the calling thread.
  BasicCpu() noexcept = default;
  /// Work is spread by `executor`, which must outlive this.
  explicit BasicCpu(ExecutorRef executor) noexcept : executor_(executor) {}

  /// What spreads its work.
  [[nodiscard]] ExecutorRef executor() const noexcept { return executor_; }

  /// Rows are computed alike whatever they are, and at once.
  void begin(RowKind) const noexcept {}
  void pace() const noexcept {}

  /// A weight out of a file's tensors, packed into panels on the executor; the tensors are not needed afterwards.
  /// Throws Error(mismatch) unless the parts join, Error(limit_exceeded) if the size overflows.
  [[nodiscard]] PackedMatrix matrix(std::span<const RawTensor> parts, Join join, Weights weights,
                                    std::pmr::memory_resource* memory) const {
    PackedMatrix w(parts, join, format_of(weights, parts), memory);
    pack(w, parts);
    return w;
  }

  /// A difference of few bits, packed in the same way. Errors as PackedMatrix.
  [[nodiscard]] PackedMatrix delta(std::span<const RawDelta> parts, std::pmr::memory_resource* memory) const {
    PackedMatrix w(parts, memory);
    pack(w, parts);
    return w;
  }

  /// Bytes of one page of one head.
  [[nodiscard]] static constexpr index_t page_bytes(CacheFormat format, index_t e) noexcept {
    return KvPage::bytes(format, e);
  }

  /// Room for the rows of a product.
  [[nodiscard]] Input input(index_t rows, index_t k, std::pmr::memory_resource* memory) const {
    return Input(rows, k, memory);
  }

  /// A vector [Σ n_i] as float, plus a constant. Throws Error(mismatch) unless each part is [n_i].
  [[nodiscard]] Tensor<float, 1> vector(std::span<const RawTensor> parts, std::pmr::memory_resource* memory,
                                        float plus = 0) const {
    return detail::float_vector(parts, memory, plus);
  }

  /// An owning tensor of zeros.
  template <class T, std::size_t Rank>
  [[nodiscard]] Tensor<T, Rank> tensor(std::array<index_t, Rank> extents, std::pmr::memory_resource* memory) const {
    return Tensor<T, Rank>(extents, memory);
  }

  /// y[row(i),:] = factor(i) · w[tokens[i],:]
  void embed(const PackedMatrix& w, std::span<const std::int32_t> tokens, MatrixView<float> y,
             const Chosen& chosen = {}) const {
    detail::unpack_rows(executor_, w, tokens, y, chosen);
  }

  void fill(float value, MatrixView<float> y) const { detail::fill(value, y); }
  void copy(MatrixView<const float> x, MatrixView<float> y) const { detail::copy(x, y); }
  void from_host(MatrixView<const float> x, MatrixView<float> y) const { detail::copy(x, y); }
  void to_host(MatrixView<const float> x, MatrixView<float> y) const { detail::copy(x, y); }

  /// y[row(i),:] += factor(i) · bias
  void add_bias(VectorView<const float> bias, MatrixView<float> y, const Chosen& chosen = {}) const {
    for_rows(chosen.count(y.extent(0)), 2 * y.extent(1), [&](index_t i) {
      detail::add_bias_row<Arch>(bias.data(), chosen.factor(i), y.extent(1), &y(chosen.row(i), 0));
    });
  }
  /// y = cap · tanh(y / cap)
  void soft_cap(float cap, MatrixView<float> y, const Chosen& chosen = {}) const {
    for_rows(chosen.count(y.extent(0)), 32 * y.extent(1),
             [&](index_t t) { detail::soft_cap_row<Arch>(cap, y.extent(1), &y(chosen.row(t), 0)); });
  }

  /// y[t,i] = x[t,i] · s[i] / sqrt(mean_i x[t,i]² + eps)
  void rms_norm(MatrixView<const float> x, const RowScales<Host>& s, float eps, MatrixView<float> y) const {
    for_rows(x.extent(0), 2 * x.extent(1),
             [&](index_t t) { detail::rms_norm_row<Arch>(&x(t, 0), s.of(t), eps, x.extent(1), &y(t, 0)); });
  }

  /// y += that
  void add_rms_norm(MatrixView<const float> x, const RowScales<Host>& s, float eps, MatrixView<float> y) const {
    for_rows(x.extent(0), 2 * x.extent(1),
             [&](index_t t) { detail::add_rms_norm_row<Arch>(&x(t, 0), s.of(t), eps, x.extent(1), &y(t, 0)); });
  }
  /// x[t,h,:] = that of each head
  void norm_heads(VectorView<const float> scale, float eps, TensorView<float, 3> x) const {
    for_rows(x.extent(0), 2 * x.extent(1) * x.extent(2), [&](index_t t) {
      for (index_t h = 0; h < x.extent(1); ++h) {
        detail::rms_norm_row<Arch>(&x(t, h, 0), scale.data(), eps, x.extent(2), &x(t, h, 0));
      }
    });
  }

  /// input = x[row(t),:], as products with w's format read it.
  void prepare(MatrixView<const float> x, const PackedMatrix& w, Input& input, const Chosen& chosen = {}) const {
    const index_t k = x.extent(1);
    input.write(
        executor_, w.format(), chosen.count(x.extent(0)), k, [](index_t) { return 1.0F; },
        [&, k](index_t t, float, index_t j) { return detail::load_row<Arch>(&x(chosen.row(t), 0), j, k); });
  }

  /// input = rms_norm(x)[row(t),:]
  void prepare_normed(MatrixView<const float> x, const RowScales<Host>& s, float eps, const PackedMatrix& w,
                      Input& input, const Chosen& chosen = {}) const {
    const index_t k = x.extent(1);
    input.write(
        executor_, w.format(), chosen.count(x.extent(0)), k,
        [&, eps, k](index_t t) { return detail::rms_norm_scale<Arch>(&x(chosen.row(t), 0), eps, k); },
        [&, k](index_t t, float scale, index_t j) {
          return detail::load_row<Arch>(&x(chosen.row(t), 0), j, k) * detail::simd::Lanes<Arch>::broadcast(scale) *
                 detail::load_row<Arch>(s.of(chosen.row(t)), j, k);
        });
  }

  /// y[row(t),i] (+)= factor(t) · Σ_j input[t,j] · w[i,j]
  void matmul(const Input& input, const PackedMatrix& w, Write write, MatrixView<float> y,
              const Chosen& chosen = {}) const {
    const Product<BasicCpu> product{&input, &w, write, y, chosen};
    matmul({&product, 1});
  }

  /// Several of these at once.
  void matmul(std::span<const Product<BasicCpu>> products) const {
    detail::run_products(executor_, products, [](const Product<BasicCpu>& p) { return detail::MatmulJob<Arch>(p); });
  }

  /// y[t,i] = gated(plus[t,i] + Σ_j input[t,j] · gate[i,j], plus[t,n+i] + Σ_j input[t,j] · up[i,j])
  void matmul_gated(const Input& input, const PackedMatrix& w, const Activation& activation,
                    MatrixView<const float> plus, MatrixView<float> y) const {
    const detail::MatmulJob<Arch> job(input, w, activation, plus, y);
    detail::run_products(
        executor_, std::span(&job, 1), [](const auto& j) -> const auto& { return j; });
  }

  /// y[t,i] = gated(gate[t,i], up[t,i])
  void gated(MatrixView<const float> gate, MatrixView<const float> up, const Activation& activation,
             MatrixView<float> y) const {
    for_rows(y.extent(0), 16 * y.extent(1),
             [&](index_t t) { detail::gated_row<Arch>(&gate(t, 0), &up(t, 0), activation, y.extent(1), &y(t, 0)); });
  }

  /// cosine[t,i], sine[t,i] = factor · cos, sin(position[t] · frequency[i])
  void angles(VectorView<const float> frequency, VectorView<const float> long_frequency, float factor,
              std::span<const Site> sites, MatrixView<float> cosine, MatrixView<float> sine) const noexcept {
    detail::angles(frequency, long_frequency, factor, sites, cosine, sine);
  }

  /// The pair (a, b) = (x[i], x[i + r/2]) of every head becomes (a·cos - b·sin, b·cos + a·sin).
  void rope(MatrixView<const float> cosine, MatrixView<const float> sine, TensorView<float, 3> x) const {
    for_rows(x.extent(0), 4 * x.extent(1) * x.extent(2), [&](index_t t) {
      for (index_t h = 0; h < x.extent(1); ++h) {
        detail::rope_head<Arch>(&cosine(t, 0), &sine(t, 0), cosine.extent(1), &x(t, h, 0));
      }
    });
  }

  /// Writes row t's keys and values at sites[t].
  void cache_write(std::span<const Site> sites, TensorView<const float, 3> k, TensorView<const float, 3> v,
                   CacheLayer<Host> cache) const {
    for_rows(k.extent(0), 8 * k.extent(1) * k.extent(2), [&](index_t t) {
      const Site& site = sites[static_cast<std::size_t>(t)];
      for (index_t g = 0; g < k.extent(1); ++g) {
        cache.page(site.pages[site.position / page_tokens], g)
            .write(site.position % page_tokens, &k(t, g, 0), &v(t, g, 0));
      }
    });
  }

  /// Copies a page of a layer over another.
  void cache_copy(CacheLayer<Host> cache, std::int32_t from, std::int32_t to) const {
    detail::copy_page(cache, from, to);
  }

  /// y[t,h,:] = Σ_p softmax_p(scale · q[t,h,:]·k[p,h',:]) v[p,h',:]
  void attention(std::span<const Site> sites, TensorView<const float, 3> q, CacheLayer<Host> cache,
                 const AttentionRule<>& rule, TensorView<float, 3> y) const {
    detail::AttentionJob<Arch>(sites, q, cache, rule, y).run(executor_);
  }

 private:
  template <class Part>
  void pack(PackedMatrix& w, std::span<const Part> parts) const {
    const index_t size = detail::chunk_size(executor_, w.panels(), w.cols() * panel_outputs);
    detail::for_chunks(executor_, w.panels(), size, [&](index_t first, index_t last) {
      for (index_t i = first; i < last; ++i) w.pack(i, parts);
    });
  }

  /// f(i) for every i in [0, count), in chunks that are worth a thread.
  template <class F>
  void for_rows(index_t count, index_t work_per_row, F&& f) const {
    detail::for_chunks(executor_, count, detail::chunk_size(executor_, count, work_per_row),
                       [&](index_t first, index_t last) {
                         for (index_t i = first; i < last; ++i) f(i);
                       });
  }

  ExecutorRef executor_;
};

/// The CPU backend for the instruction set that the compiler's flags allow.
using Cpu = BasicCpu<>;

static_assert(Backend<Cpu>);

}  // namespace finteam::inline FINTEAM_ABI
