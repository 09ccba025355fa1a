// What the routers of a decoder made of every token that it read: kept by position, so that a token that is taken back
// leaves no trace. Not here: decoders that several sequences read on at once (no merged checkpoint has adapters).
#pragma once

#include <finteam/expert/decoder.hpp>
#include <finteam/team/routing.hpp>

#include <algorithm>
#include <cstdint>
#include <memory_resource>
#include <span>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// Empty, and free of cost, for a decoder without routers. Made once; nothing is allocated afterwards.
class RoutingRecord {
 public:
  RoutingRecord(const Config& c, index_t tokens, std::pmr::memory_resource* memory)
      : layers_(c.is_routed() ? c.layers : 0),
        experts_(c.experts),
        by_token_({layers_ == 0 ? 0 : tokens, layers_, experts_}, memory),
        beside_(static_cast<std::size_t>(layers_ * experts_)) {}

  /// Bytes that are taken from `memory` for that.
  [[nodiscard]] static std::uint64_t bytes(const Config& c, index_t tokens) noexcept {
    return c.is_routed() ? 4 * static_cast<std::uint64_t>(tokens * c.layers * c.experts) : 0;
  }

  /// Forgets all.
  void start() noexcept {
    length_ = count_beside_ = 0;
    std::fill(beside_.begin(), beside_.end(), 0.0);
  }
  /// Forgets the tokens beyond the first `tokens`.
  void truncate(index_t tokens) noexcept { length_ = std::min(length_, tokens); }

  /// The rows of a step, which go on with the sequence. routing [≥ rows, layers, experts]
  void add(std::span<const Row> rows, TensorView<const float, 3> routing) noexcept {
    if (layers_ == 0) return;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      std::copy_n(&routing(static_cast<index_t>(i), 0, 0), layers_ * experts_,
                  &by_token_.view()(rows[i].position, 0, 0));
      length_ = rows[i].position + 1;
    }
  }
  /// The rows of a step beside the sequence: tokens of labels.
  void add_beside(std::span<const Row> rows, TensorView<const float, 3> routing) noexcept {
    for (index_t i = 0; i < static_cast<index_t>(rows.size()) && layers_ > 0; ++i, ++count_beside_) {
      for (index_t l = 0; l < layers_; ++l) add_to(&beside_[at(l)], &routing(i, l, 0));
    }
  }

  /// Means over the sequence's first `prompt` tokens, and over its others with those beside it. The tables have room.
  void means(index_t prompt, Routing& out) const noexcept {
    mean(0, std::min(prompt, length_), 0, out.prompt);
    mean(prompt, length_, count_beside_, out.answer);
  }

  /// Gives a table room for this decoder's layers and experts.
  void shape(RoutingTable& table) const { table = {layers_, experts_, std::vector<double>(beside_.size())}; }

 private:
  [[nodiscard]] std::size_t at(index_t layer) const noexcept { return static_cast<std::size_t>(layer * experts_); }
  void add_to(double* sums, const float* weights) const noexcept {
    for (index_t k = 0; k < experts_; ++k) sums[k] += static_cast<double>(weights[k]);
  }

  /// Sums go from token to token, so a mean does not depend on the steps.
  void mean(index_t first, index_t last, index_t beside, RoutingTable& out) const noexcept {
    if (beside > 0) {
      std::copy(beside_.begin(), beside_.end(), out.weights.begin());
    } else {
      std::fill(out.weights.begin(), out.weights.end(), 0.0);
    }
    for (index_t t = first; t < last; ++t) {
      for (index_t l = 0; l < layers_; ++l) add_to(&out.weights[at(l)], &by_token_.view()(t, l, 0));
    }
    const index_t count = std::max<index_t>(last - first, 0) + beside;
    for (double& w : out.weights) w /= static_cast<double>(std::max<index_t>(count, 1));
  }

  index_t layers_, experts_;
  Tensor<float, 3> by_token_;   // [tokens, layers, experts]
  std::vector<double> beside_;  // Σ, [layers, experts]
  index_t length_ = 0, count_beside_ = 0;
};

}  // namespace finteam::inline FINTEAM_ABI
