// How attention and feed-forward join the residual stream, with a norm before them, behind them, or both.
// Not here: the layers themselves.
#pragma once

#include <finteam/backend/backend.hpp>

namespace finteam::inline FINTEAM_ABI {

/// x += behind(f(before(x))), each of the two an RMS norm, or nothing where it has no scale. Source: Xiong et al. 2020
/// (before); Team OLMo 2025, 2 OLMo 2 Furious (behind); Gemma Team 2024, Gemma 2 (both).
template <Backend B>
struct Residual {
  using Space = typename B::Space;
  RowScales<Space> before, behind;
  float eps = 0;
  MatrixView<float, Space> x;      ///< [t, d]
  MatrixView<float, Space> own{};  ///< [t, d], where there is a norm behind

  /// input = the chosen rows of before(x), as products with w read them.
  void prepare(B& b, const typename B::Matrix& w, typename B::Input& input, const Chosen& chosen = {}) const {
    if (before.empty()) return b.prepare(x, w, input, chosen);
    b.prepare_normed(x, before, eps, w, input, chosen);
  }
  /// y = before(x). [t, d]
  void norm(B& b, MatrixView<float, Space> y) const { before.empty() ? b.copy(x, y) : b.rms_norm(x, before, eps, y); }

  /// Where f's results are to be added.
  [[nodiscard]] MatrixView<float, Space> begin(B& b) const {
    if (behind.empty()) return x;
    b.fill(0.0F, own);
    return own;
  }
  /// After that.
  void finish(B& b) const {
    if (!behind.empty()) b.add_rms_norm(own, behind, eps, x);
  }
};

}  // namespace finteam::inline FINTEAM_ABI
