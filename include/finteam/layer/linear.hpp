// What experts add to a shared linear layer: y[t,:] += Σ_k weight[t,k] · delta_k(x[t,:]), law 1 in a linear layer.
// A delta is a low-rank pair (LoRA), a whole difference of few bits, or nothing. Not here: the shared matrix.
#pragma once

#include <finteam/backend/backend.hpp>

#include <algorithm>
#include <span>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// One expert's difference to one shared matrix [n, k], which may be several stacked ones. Empty: none.
template <Backend B>
struct LinearDelta {
  /// scale · b · u, u the rows [inner, inner + r) of a·x, for the outputs from `outer` on.
  struct Up {
    typename B::Matrix b;  ///< [n_i, r]
    index_t inner = 0, outer = 0;
    float scale = 1;
  };
  std::vector<typename B::Matrix> a;  ///< none or one: [Σ r, k], of all pairs, which read the same x; odd r made even
  std::vector<Up> ups;
  std::vector<typename B::Matrix> whole;  ///< none, or one where there are no pairs: [n, k]
};

/// The rows of a step that an expert is added to, and at what weight each: what a Chosen looks at. Made once.
class ChosenRows {
 public:
  ChosenRows() = default;
  /// Room for up to t rows.
  explicit ChosenRows(index_t t) {
    rows_.reserve(static_cast<std::size_t>(t));
    weight_.reserve(static_cast<std::size_t>(t));
  }
  void clear() noexcept {
    rows_.clear();
    weight_.clear();
  }
  void add(std::int32_t row, float weight) {
    rows_.push_back(row);
    weight_.push_back(weight);
  }
  [[nodiscard]] std::span<const std::int32_t> rows() const noexcept { return rows_; }
  /// Not for no rows: an empty Chosen is all of them.
  [[nodiscard]] Chosen chosen() const noexcept { return {.rows = rows_, .weight = weight_}; }

 private:
  std::vector<std::int32_t> rows_;
  std::vector<float> weight_;
};

/// Most rows of each expert for which products of several run side by side: more keep the threads busy by themselves.
inline constexpr index_t few_rows = 16;

/// The experts of one step, and working memory for their deltas; all empty where a decoder has none.
template <Backend B>
struct DeltaScratch {
  template <std::size_t R>
  using Tensor = decltype(std::declval<B&>().template tensor<float, R>({}, nullptr));
  std::vector<Chosen> experts;            ///< by expert: the rows of this step that it is added to, at what weight
  std::vector<std::int32_t> row_experts;  ///< by row: whose norms it has, or -1; empty where nobody has any
  bool together = true;                   ///< no row has two experts, no expert more than few_rows rows
  std::vector<typename B::Input> inputs;  ///< of the widest k: one of up to t rows, and for the others few_rows
  std::vector<Product<B>> products;       ///< that run side by side, room for those of all experts
  Tensor<2> inner;                        ///< [t, most Σ r]
};

namespace detail {

/// As add_deltas, of the experts [first, last), no two of which have a row in common: all side by side.
template <Backend B, class Prepare>
void add_deltas_at_once(B& b, std::span<const LinearDelta<B>> deltas, std::size_t first, std::size_t last,
                        DeltaScratch<B>& s, Prepare&& prepare, MatrixView<float, typename B::Space> y) {
  using View = MatrixView<float, typename B::Space>;
  const auto columns = [](View x, index_t from, index_t n) {
    return View(x.data() + from, {x.extent(0), n}, x.strides());
  };
  const auto each = [&](auto&& f) {
    for (std::size_t k = first; k < last; ++k) {
      if (!s.experts[k].rows.empty()) f(deltas[k], s.experts[k], s.inputs[k - first]);
    }
  };
  s.products.clear();
  each([&](const LinearDelta<B>& delta, const Chosen& chosen, auto& input) {
    for (const auto& a : delta.a) {
      prepare(a, input, chosen);
      s.products.push_back({&input, &a, Write::overwrite, columns(s.inner.view(), 0, a.rows()), {.rows = chosen.rows}});
    }
  });
  if (!s.products.empty()) b.matmul(s.products);
  s.products.clear();
  each([&](const LinearDelta<B>& delta, const Chosen& chosen, auto& input) {
    for (const auto& a : delta.a) {
      b.prepare(columns(s.inner.view(), 0, a.rows()), delta.ups.front().b, input, {.rows = chosen.rows});
    }
    for (const auto& up : delta.ups) {
      Chosen scaled = chosen;
      scaled.scale *= up.scale;
      s.products.push_back({&input, &up.b, Write::accumulate, columns(y, up.outer, up.b.rows()), scaled, up.inner});
    }
    for (const auto& whole : delta.whole) {
      prepare(whole, input, chosen);
      s.products.push_back({&input, &whole, Write::accumulate, y, chosen});
    }
  });
  if (!s.products.empty()) b.matmul(s.products);
}

}  // namespace detail

/// y[t,:] += Σ_k weight[t,k] · delta_k(x[t,:]), k over s.experts, in rising order. deltas: by expert, or none;
/// prepare(w, input, chosen) writes the chosen rows of x as products with w read them. y [t, n]. Source of the pair:
/// Hu et al. 2021, eq. 3.
template <Backend B, class Prepare>
void add_deltas(B& b, std::span<const LinearDelta<B>> deltas, DeltaScratch<B>& s, Prepare&& prepare,
                MatrixView<float, typename B::Space> y) {
  const std::size_t together = s.together ? deltas.size() : 1;
  for (std::size_t k = 0; k < deltas.size(); k += together) {
    detail::add_deltas_at_once(b, deltas, k, k + together, s, prepare, y);
  }
}

/// y[t,:] (+)= w · x[t,:] + Σ_k weight[t,k] · delta_k(x[t,:]): a linear layer. w [n, k], input: room for x; the rest as
/// above.
template <Backend B, class Prepare>
void linear(B& b, const typename B::Matrix& w, std::span<const LinearDelta<B>> deltas, typename B::Input& input,
            DeltaScratch<B>& s, Prepare&& prepare, Write write, MatrixView<float, typename B::Space> y) {
  prepare(w, input, Chosen{});
  b.matmul(input, w, write, y);
  add_deltas<B>(b, deltas, s, prepare, y);
}

}  // namespace finteam::inline FINTEAM_ABI
