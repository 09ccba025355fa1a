// The gate of a gated feed-forward layer: which curve, and its constants. Not here: the curve in lanes (backend/cpu).
#pragma once

#include <finteam/core/config.hpp>

#include <cstdint>

namespace finteam::inline FINTEAM_ABI {

/// What a gated feed-forward layer makes of gate z and up u.
struct Activation {
  enum class Kind : std::uint8_t {
    silu,          ///< z / (1 + exp(-z)) · u. Source: Shazeer 2020, eq. 6
    gelu_tanh,     ///< z / 2 · (1 + tanh(√(2/π) · (z + 0.044715 z³))) · u. Source: Hendrycks & Gimpel 2016
    clamped_silu,  ///< z / (1 + exp(-alpha · z)) · (u + 1), z ≤ limit, |u| ≤ limit. Source: transformers, gpt_oss
  };
  Kind kind = Kind::silu;
  float alpha = 0, limit = 0;  ///< of clamped_silu

  friend bool operator==(const Activation&, const Activation&) = default;
};

}  // namespace finteam::inline FINTEAM_ABI
