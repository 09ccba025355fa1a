// The shape and the constants of a decoder, as the rooms to the right read them. Not here: config.json (config.hpp),
// the families (family.hpp), rope's frequencies (layer/rope.hpp), tensors.
#pragma once

#include <finteam/core/activation.hpp>
#include <finteam/core/checked.hpp>
#include <finteam/file/quantization.hpp>
#include <finteam/file/rope_config.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// The linear layers of a block that can have a router each (mergoo), by the checkpoint's words.
inline constexpr std::array<std::string_view, 4> attention_linears{"q_proj", "k_proj", "v_proj", "o_proj"};
inline constexpr std::array<std::string_view, 3> feed_forward_linears{"gate_proj", "up_proj", "down_proj"};

/// Where a block's norms stand: before attention and feed-forward (Llama), behind each, before it is added to the
/// residual stream (OLMo-2), or both (Gemma).
enum class NormPlace : std::uint8_t { before, behind, around };

/// Whether queries and keys are normed before they are rotated: not, each head by itself, or all heads as one vector.
enum class HeadNorm : std::uint8_t { none, each, all };

/// The shape and the constants of a decoder: Llama's, and the named differences of the families that are like it; or of
/// one that holds several experts in its feed-forward layers (Mixtral) or in single linear layers (mergoo).
struct Config {
  std::string where;       ///< what errors call it: "micro/config.json"
  std::string model_type;  ///< "llama", "mistral", …: a name in detail::families
  index_t v = 0;           ///< vocabulary
  index_t d = 0;           ///< model width
  index_t layers = 0;
  index_t h = 0;                               ///< heads
  index_t g = 0;                               ///< key/value heads; divides h
  index_t e = 0;                               ///< head width, even
  index_t f = 0;                               ///< feed-forward width, of each expert
  index_t experts = 1;                         ///< in each feed-forward or linear layer that has a router
  index_t experts_per_token = 0;               ///< of them, that each router chooses; 0: no router, and one expert
  std::vector<std::string> router_layers{};    ///< linear layers with routers of their own; none: feed-forward layers
  std::vector<index_t> router_layers_index{};  ///< the blocks where they have them
  bool experts_renormalise = true;             ///< the weights of a row's experts sum to 1
  index_t max_positions = 0;
  index_t window = 0;            ///< positions that a row of attention sees, its own the last; 0: all before it
  std::vector<bool> sees_all{};  ///< by layer: those without that window; empty: none
  double rms_norm_eps = 0;
  NormPlace norms = NormPlace::before;
  bool norms_add_one = false;  ///< norms scale by 1 + w (Gemma)
  HeadNorm head_norm = HeadNorm::none;
  bool qkv_bias = false, o_bias = false, mlp_bias = false, router_bias = false;
  bool sinks = false;              ///< attention has a logit for nothing, by head
  bool fused_projections = false;  ///< files hold qkv_proj and gate_up_proj (Phi-3)
  Activation activation{};
  double embedding_scale = 1;           ///< of the input embedding
  double score_scale = 0;               ///< of attention's scores; 0: 1/√e
  double score_cap = 0, logit_cap = 0;  ///< x becomes cap · tanh(x / cap); 0: as it is
  bool tie_word_embeddings = false;     ///< the output matrix is the input embedding
  RopeConfig rope;
  std::optional<RopeConfig> window_rope{};  ///< of the layers with a window, where it is another
  std::vector<bool> rotates{};              ///< by layer: those with rope; empty: all
  Quantization quantization{};              ///< how linear layers are stored
  std::optional<std::int32_t> bos;          ///< none if the files name none
  std::vector<std::int32_t> eos;            ///< any of them ends a text; empty if the files name none

  /// Whether rows of block l see the window only.
  [[nodiscard]] bool has_window(index_t l) const noexcept {
    return window > 0 && (sees_all.empty() || !sees_all[static_cast<std::size_t>(l)]);
  }
  /// Whether block l has rope.
  [[nodiscard]] bool has_rope(index_t l) const noexcept {
    return rotates.empty() || rotates[static_cast<std::size_t>(l)];
  }
  /// Whether there are routers: one for each feed-forward layer, or for some linear layers.
  [[nodiscard]] bool is_routed() const noexcept { return experts_per_token > 0; }
  /// Whether each feed-forward layer has one.
  [[nodiscard]] bool routes_feed_forward() const noexcept { return is_routed() && !routes_linears(); }
  /// Whether linear layers have routers of their own.
  [[nodiscard]] bool routes_linears() const noexcept { return !router_layers.empty(); }
  /// Routers in block l.
  [[nodiscard]] index_t routers(index_t l) const noexcept {
    if (routes_feed_forward()) return 1;
    return routers(l, attention_linears) + routers(l, feed_forward_linears);
  }
  /// How many of these linear layers of block l have one.
  [[nodiscard]] index_t routers(index_t l, std::span<const std::string_view> linears) const noexcept {
    if (std::ranges::find(router_layers_index, l) == router_layers_index.end()) return 0;
    return std::ranges::count_if(linears, [&](std::string_view linear) {
      return std::ranges::find(router_layers, linear) != router_layers.end();
    });
  }
};

}  // namespace finteam::inline FINTEAM_ABI
