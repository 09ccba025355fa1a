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
  std::vector<typename B::Matrix> a;  ///< none or one: [Σ r, k], of all pairs, which read the same x
  std::vector<Up> ups;
  std::vector<typename B::Matrix> whole;  ///< none or one: [n, k]
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

/// The experts of one step, and working memory for their deltas; all empty where a decoder has none.
template <Backend B>
struct DeltaScratch {
  template <std::size_t R>
  using Tensor = decltype(std::declval<B&>().template tensor<float, R>({}, nullptr));
  std::vector<Chosen> experts;            ///< by expert: the rows of this step that it is added to, at what weight
  std::vector<std::int32_t> row_experts;  ///< by row: whose norms it has, or -1; empty where nobody has any
  typename B::Input input;                ///< up to t rows of the widest k
  Tensor<2> inner;                        ///< [t, most Σ r]
  Tensor<2> plus;                         ///< [t, 2f]: what is added before SwiGLU
};

/// y[t,:] += Σ_k weight[t,k] · delta_k(x[t,:]), k over s.experts. deltas: by expert, or none; prepare(w, input, chosen)
/// writes the chosen rows of x as products with w read them. y [t, n]. Source of the pair: Hu et al. 2021, eq. 3.
template <Backend B, class Prepare>
void add_deltas(B& b, std::span<const LinearDelta<B>> deltas, DeltaScratch<B>& s, Prepare&& prepare,
                MatrixView<float, typename B::Space> y) {
  const auto columns = [](MatrixView<float, typename B::Space> x, index_t first, index_t n) {
    return MatrixView<float, typename B::Space>(x.data() + first, {x.extent(0), n}, x.strides());
  };
  for (std::size_t k = 0; k < deltas.size(); ++k) {
    const Chosen& chosen = s.experts[k];
    if (chosen.rows.empty()) continue;
    for (const auto& a : deltas[k].a) {
      const auto inner = s.inner.view().rows(0, chosen.count(0));
      prepare(a, s.input, chosen);
      b.matmul(s.input, a, Write::overwrite, columns(inner, 0, a.rows()));
      for (const auto& up : deltas[k].ups) {
        Chosen scaled = chosen;
        scaled.scale *= up.scale;
        b.prepare(columns(inner, up.inner, up.b.cols()), up.b, s.input);
        b.matmul(s.input, up.b, Write::accumulate, columns(y, up.outer, up.b.rows()), scaled);
      }
    }
    for (const auto& whole : deltas[k].whole) {
      prepare(whole, s.input, chosen);
      b.matmul(s.input, whole, Write::accumulate, y, chosen);
    }
  }
}

}  // namespace finteam::inline FINTEAM_ABI
