// The Backend concept: memory and the operations of a decoder, with their shapes. `Decoder<Backend>` is written once
// over it. Not here: implementations (reference.hpp, cpu.hpp). A backend is a light object that is passed by reference.
//
// Dimension letters: t rows, d model, h heads, g key/value heads, e head width, f feed-forward, v vocabulary,
// n outputs and k inputs of a matrix. Every op is batch-invariant (law 3): the bits of row i of an output depend on
// row i of the inputs, the weights, the backend and the instruction set, and on nothing else; their kind is the row's
// own. An op may run after it has returned, but has read the spans and the host views that it was given by then.
#pragma once

#include <finteam/backend/fp_environment.hpp>
#include <finteam/backend/kv_page.hpp>
#include <finteam/core/activation.hpp>
#include <finteam/core/packed.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>

namespace finteam::inline FINTEAM_ABI {

/// What an op does with its output argument.
enum class Write : std::uint8_t { overwrite, accumulate };

/// What a row is to its request, which fixes it; never its batch. A backend may take another path for each kind (law
/// 3): rows of a prompt come by the hundred, those that follow it, and labels', by the few.
enum class RowKind : std::uint8_t { prompt, generated };

/// Where a row stands: its position, and the pages of its sequence. The key at position p lies in page
/// `pages[p / page_tokens]`, slot `p % page_tokens`. A row sees the positions 0 … position of its own sequence.
struct Site {
  const std::int32_t* pages = nullptr;
  std::int32_t position = 0;
  bool is_long = false;  ///< its sequence may outgrow pretraining's contexts (RopeType::longrope)
};

/// The rows of a step that take part in a product, and how much its results count there (law 1). The i-th row of the
/// product is row(i) of the step's tensors; nothing given: every row in turn, at 1.
struct Chosen {
  std::span<const std::int32_t> rows{};  ///< each at most once
  std::span<const float> weight{};       ///< one for each of `rows`
  float scale = 1;                       ///< of all results

  [[nodiscard]] index_t row(index_t i) const noexcept {
    return rows.empty() ? i : static_cast<index_t>(rows[static_cast<std::size_t>(i)]);
  }
  [[nodiscard]] float factor(index_t i) const noexcept {
    return weight.empty() ? scale : scale * weight[static_cast<std::size_t>(i)];
  }
  /// Rows of the product, of a step of t rows.
  [[nodiscard]] index_t count(index_t t) const noexcept { return rows.empty() ? t : static_cast<index_t>(rows.size()); }
};

/// What a norm scales the rows of a step by: one vector for all, or for some rows an expert's own.
template <class Space>
struct RowScales {
  VectorView<const float, Space> shared;   ///< [d]
  MatrixView<const float, Space> own{};    ///< [experts, d], or no rows
  std::span<const std::int32_t> expert{};  ///< by row: whose own it is, or -1; empty: nobody's

  RowScales(VectorView<const float, Space> scale) noexcept : shared(scale) {}
  RowScales(VectorView<float, Space> scale) noexcept : shared(scale) {}
  RowScales(VectorView<const float, Space> scale, MatrixView<const float, Space> owns,
            std::span<const std::int32_t> experts) noexcept
      : shared(scale), own(owns), expert(experts) {}

  [[nodiscard]] bool empty() const noexcept { return shared.extent(0) == 0; }
  /// The scale of a row. [d]
  [[nodiscard]] const float* of(index_t row) const noexcept requires(std::is_same_v<Space, Host>) {
    const std::int32_t k = expert.empty() || own.extent(0) == 0 ? -1 : expert[static_cast<std::size_t>(row)];
    return k < 0 ? shared.data() : &own(k, 0);
  }
};

/// How a row's scores are made, and which positions it sees.
template <class Space = Host>
struct AttentionRule {
  float scale = 1;
  index_t window = 0;                      ///< the last so many positions, its own among them; 0: all
  float cap = 0;                           ///< a score s becomes cap · tanh(s / cap); 0: it stays
  VectorView<const float, Space> sinks{};  ///< [h]: of each head, the score of a position without a value; or empty

  /// The first position that a row sees which stands at `position`.
  [[nodiscard]] index_t first(index_t position) const noexcept {
    return window == 0 ? 0 : std::max<index_t>(position + 1 - window, 0);
  }
};

/// One layer of a paged cache: the pages of each head, one after the other. Zero bytes when it is made.
template <class Space>
struct CacheLayer {
  TensorView<std::byte, 3, Space> heads;  ///< [g, pages, B::page_bytes(format, e)]
  CacheFormat format = CacheFormat::f32;
  index_t e = 0;

  [[nodiscard]] index_t g() const noexcept { return heads.extent(0); }
  [[nodiscard]] KvPage page(index_t page, index_t head) const noexcept requires(std::is_same_v<Space, Host>) {
    return {&heads(head, page, 0), format, e};
  }
};

/// One of several products that run side by side: y[row(r),i] (+)= factor(r) · Σ_j input[r, first + j] · w[i,j], r the
/// rows that input was prepared for. No other of them writes to the same elements, or to what input is prepared from.
template <class B>
struct Product {
  const typename B::Input* input = nullptr;
  const typename B::Matrix* w = nullptr;  ///< [n, k], stacked
  Write write = Write::overwrite;
  MatrixView<float, typename B::Space> y;  ///< [t, n]
  Chosen chosen{};
  index_t first = 0;  ///< 0, or even where w is not quantised
};

namespace detail {

/// Throws Error(mismatch) unless the tensor has `rank` extents.
inline void require_rank(const RawTensor& raw, std::size_t rank, const char* what) {
  if (raw.shape.size() == rank) return;
  throw Error(Code::mismatch, what, std::to_string(rank) + " extents", shape_string(raw.shape));
}

/// A file's vectors [n_i] as float, one behind the other, plus a constant, in host memory.
[[nodiscard]] inline Tensor<float, 1> float_vector(std::span<const RawTensor> parts, std::pmr::memory_resource* memory,
                                                   float plus = 0) {
  index_t n = 0;
  for (const RawTensor& raw : parts) {
    require_rank(raw, 1, "vector");
    n += raw.shape[0];
  }
  Tensor<float, 1> v({n}, memory);
  float* to = v.data();
  for (const RawTensor& raw : parts) {
    for (index_t i = 0; i < raw.shape[0]; ++i) *to++ = raw[i] + plus;
  }
  return v;
}

inline void fill(float value, MatrixView<float> y) noexcept {
  for (index_t t = 0; t < y.extent(0); ++t) std::fill_n(&y(t, 0), y.extent(1), value);
}

inline void copy(MatrixView<const float> x, MatrixView<float> y) noexcept {
  for (index_t t = 0; t < y.extent(0); ++t) std::copy_n(&x(t, 0), y.extent(1), &y(t, 0));
}

/// As Backend says it, in host memory. The cosine is taken in double.
inline void angles(VectorView<const float> frequency, VectorView<const float> long_frequency, float factor,
                   std::span<const Site> sites, MatrixView<float> cosine, MatrixView<float> sine) noexcept {
  const FpEnvironment environment;
  for (std::size_t t = 0; t < sites.size(); ++t) {
    const bool is_long = sites[t].is_long && long_frequency.size() != 0;
    const auto radians = (is_long ? long_frequency : frequency).span();
    for (std::size_t i = 0; i < radians.size(); ++i) {
      const double angle = static_cast<double>(static_cast<float>(sites[t].position) * radians[i]);
      cosine(t, i) = static_cast<float>(static_cast<double>(factor) * std::cos(angle));
      sine(t, i) = static_cast<float>(static_cast<double>(factor) * std::sin(angle));
    }
  }
}

/// Page `from` of a layer in host memory over page `to`.
inline void copy_page(const CacheLayer<Host>& cache, std::int32_t from, std::int32_t to) noexcept {
  for (index_t head = 0; head < cache.g(); ++head) {
    const auto source = cache.heads.row(head).row(from).span(), target = cache.heads.row(head).row(to).span();
    std::memcpy(target.data(), source.data(), source.size());
  }
}

}  // namespace detail

/// The operations that a decoder is made of. `Matrix` is a weight [n, k] in whatever layout the backend likes; `Input`
/// holds the rows of one product in the form that the matrix's format wants them, and is made once for many products.
template <class B>
concept Backend = requires(B& b, const typename B::Matrix& w, typename B::Input& input,
                           std::span<const RawTensor> parts, std::span<const std::int32_t> tokens,
                           std::span<const Site> sites, MatrixView<const float, typename B::Space> x,
                           MatrixView<float, typename B::Space> y, const RowScales<typename B::Space>& scales,
                           std::span<const RawDelta> deltas, std::span<const Product<B>> products,
                           TensorView<const float, 3, typename B::Space> x3, TensorView<float, 3, typename B::Space> y3,
                           CacheLayer<typename B::Space> cache, const Chosen& chosen, MatrixView<const float> host_x,
                           MatrixView<float> host_y, std::pmr::memory_resource* memory) {
  typename B::Space;

  /// What the rows of the ops that follow are. Of a new backend: generated.
  b.begin(RowKind::prompt);
  /// Said before every layer: a backend that runs behind its caller waits here, if it is too far behind.
  b.pace();

  /// A weight out of a file's tensors, which one product reads together: stacked [Σ n_i, k], or a pair of [n, k].
  /// The tensors are not needed afterwards.
  { b.matrix(parts, Join::stacked, Weights::stored, memory) } -> std::same_as<typename B::Matrix>;
  /// A low-bit difference to a stacked matrix, out of a file's parts, for products only.
  { b.delta(deltas, memory) } -> std::same_as<typename B::Matrix>;
  { w.rows() } -> std::convertible_to<index_t>;
  { w.cols() } -> std::convertible_to<index_t>;
  /// A vector (a norm's scale, a bias) from a file's tensors [n_i], as float, one behind the other, plus a constant.
  { b.vector(parts, memory, 1.0F).view() } -> std::same_as<VectorView<float, typename B::Space>>;
  /// An owning zeroed tensor in the backend's space: b.template tensor<float, 2>({t, d}, memory).
  { b.template tensor<float, 2>({index_t{1}, index_t{1}}, memory).view() } -> std::same_as<decltype(y)>;
  /// Bytes of one page of one head of width e in the backend's space.
  { B::page_bytes(CacheFormat::f32, index_t{1}) } -> std::same_as<index_t>;
  /// Room for the input of any product of up to t rows of up to k elements: b.input(t, k, memory).
  { b.input(index_t{1}, index_t{1}, memory) } -> std::same_as<typename B::Input>;

  /// y[row(i),:] = factor(i) · w[tokens[i],:]. w [v, d], stacked, y [t, d], overwritten in the chosen rows. Tokens are
  /// in range: the caller has checked.
  b.embed(w, tokens, y, chosen);

  /// y = a constant.
  b.fill(0.0F, y);
  /// y = x, of the same extents.
  b.copy(x, y);
  /// y = x, of the same extents, x in host memory.
  b.from_host(host_x, y);
  /// y = x, of the same extents, y in host memory, once everything before has run. Throws Error(system) where the
  /// device failed: what was computed is then lost.
  b.to_host(x, host_y);
  /// y[row(i),:] += factor(i) · bias. bias [n], y [t, n].
  b.add_bias(scales.shared, y, chosen);
  /// y = cap · tanh(y / cap), each element of the chosen rows. cap > 0.
  b.soft_cap(30.0F, y, chosen);

  /// y[t,i] = x[t,i] · s[t,i] / sqrt(mean_i x[t,i]² + eps), s[t,:] the row's scale. x [t, d], y [t, d], overwritten; y
  /// may be x. Source: Zhang & Sennrich 2019, eq. 4.
  b.rms_norm(x, scales, 1e-5F, y);
  /// y += that.
  b.add_rms_norm(x, scales, 1e-5F, y);
  /// That of every head by itself, in place, with one scale for all. scale [e], x [t, heads, e].
  b.norm_heads(scales.shared, 1e-5F, y3);

  /// input = the chosen rows of x, as products with matrices of w's format read it. x [t, k]. Weights do not count.
  /// A product may read x and the scales itself: they stay as they are until the last one.
  b.prepare(x, w, input, chosen);
  /// input = the chosen rows of rms_norm(x) for such products.
  b.prepare_normed(x, scales, 1e-5F, w, input, chosen);

  /// y[row(r),i] (+)= factor(r) · Σ_j input[r,j] · w[i,j]. w [n, k], stacked, r: the rows that input was prepared for,
  /// y [t, n].
  b.matmul(input, w, Write::accumulate, y, chosen);

  /// Several of these at once.
  b.matmul(products);

  /// y[t,i] = gated(gate[t,i], up[t,i]) by the activation, gate[t,i] = Σ_j input[t,j] · gate_proj[i,j] + plus[t,i],
  /// up[t,i] = Σ_j input[t,j] · up_proj[i,j] + plus[t,n+i]. w: gate_proj and up_proj [n, k], paired, plus [t, 2n], or
  /// no rows for 0, y [t, n], overwritten.
  b.matmul_gated(input, w, Activation{}, x, y);

  /// The same of what separate products gave. gate, up, y [t, f], y overwritten; y may be either. Rows may lie apart.
  b.gated(x, x, Activation{}, y);

  /// cosine[t,i] = factor · cos(position[t] · f[i]), sine likewise, f the frequencies [r/2], or those of long sequences
  /// at sites that are in one, if they are not empty. The angle is rounded to float, as transformers does. cosine, sine
  /// [t, r/2], overwritten.
  b.angles(scales.shared, scales.shared, 1.0F, sites, y, y);

  /// Rotates the pairs (x[i], x[i + r/2]), i < r/2, of every head by the angle whose cosine and sine are given; what
  /// lies beyond r stays. cosine, sine [t, r/2], x [t, heads, e], in place, r ≤ e. Source: Su et al. 2021, in the
  /// half-split order of transformers.
  b.rope(x, x, y3);

  /// Writes each row's keys and values at its site, as KvPage::write has them. k, v [t, g, e].
  b.cache_write(sites, x3, x3, cache);

  /// Copies the keys and values of page 0 to page 1 (any two pages).
  b.cache_copy(cache, std::int32_t{0}, std::int32_t{1});

  /// y[t,h,:] = Σ_p softmax_p(scale · q[t,h,:]·k[p,h',:]) v[p,h',:], p = first(position) … position, by the rule,
  /// h' = h / (h_count / g). q [t, h, e], y [t, h, e], overwritten. Reads keys and values as they are stored, and
  /// rounds scale · q as the inputs of a product with the keys' format are rounded.
  b.attention(sites, x3, cache, AttentionRule<typename B::Space>{}, y3);
};

/// A vector in a backend's space.
template <Backend B>
using Vector = decltype(std::declval<B&>().vector(std::span<const RawTensor>(), nullptr));

/// Whether the CPU can read what the backend writes.
template <class B>
inline constexpr bool is_on_host = std::is_same_v<typename B::Space, Host>;

/// Room for what on_host copies, in host memory: [t, n], or no rows where nothing needs to be copied.
template <class B>
[[nodiscard]] Tensor<float, 2> host_room(index_t t, index_t n, std::pmr::memory_resource* memory) {
  return Tensor<float, 2>({is_on_host<B> ? 0 : t, n}, memory);
}

/// x for the CPU to read: itself, or a copy in the first rows of `room`. x [t, n].
template <Backend B>
[[nodiscard]] MatrixView<const float> on_host(B& b, MatrixView<const float, typename B::Space> x,
                                              MatrixView<float> room) {
  if constexpr (is_on_host<B>) {
    return x;
  } else {
    const MatrixView<float> y = room.rows(0, x.extent(0));
    b.to_host(x, y);
    return y;
  }
}

}  // namespace finteam::inline FINTEAM_ABI
