// The shapes that the benches ask about, by name, and what a step of one must compute.
// Not here: bytes, which depend on how the engine stores them (model.hpp).
#pragma once

#include <finteam/core/error.hpp>
#include <finteam/file/config.hpp>

#include <string>
#include <string_view>
#include <vector>

namespace bench {

using finteam::index_t;

inline constexpr std::string_view shape_names[] = {"llama-3.2-1b", "llama-3-8b", "mini-team", "tiny"};

/// The decoder of that name. Sources: the config.json of meta-llama/Llama-3.2-1B and Meta-Llama-3-8B (rope unscaled:
/// its angles cost the same), and of a role of examples/mini-team; tiny is nobody's, to try a bench.
inline finteam::Config shape(std::string_view name) {
  finteam::Config c;
  c.where = name;
  c.model_type = "llama";
  c.max_positions = 16384;
  c.rms_norm_eps = 1e-5;
  c.rope.theta = 500'000;
  c.eos = {4091, 4094};
  c.v = 128'256;
  if (name == "llama-3.2-1b") {
    c.d = 2048, c.layers = 16, c.h = 32, c.g = 8, c.e = 64, c.f = 8192;
    c.tie_word_embeddings = true;
  } else if (name == "llama-3-8b") {
    c.d = 4096, c.layers = 32, c.h = 32, c.g = 8, c.e = 128, c.f = 14'336;
  } else if (name == "mini-team") {
    c.d = 192, c.layers = 4, c.h = 6, c.g = 2, c.e = 32, c.f = 512, c.v = 4096;
    c.tie_word_embeddings = true;
  } else if (name == "tiny") {
    c.d = 64, c.layers = 2, c.h = 2, c.g = 1, c.e = 32, c.f = 96, c.v = 256;
  } else {
    throw finteam::Error(finteam::Code::invalid_argument, "--shape", "llama-3.2-1b, llama-3-8b, mini-team or tiny",
                         std::string(name));
  }
  return c;
}

/// Weights of the matrices of all blocks; each is used once for every row.
inline double block_weights(const finteam::Config& c) {
  return static_cast<double>(c.layers) * static_cast<double>(2 * c.d * c.e * (c.h + c.g) + 3 * c.d * c.f);
}
/// Weights of the head; used once for every row of logits.
inline double head_weights(const finteam::Config& c) { return static_cast<double>(c.v * c.d); }

/// Operations of attention in one layer for a row that sees `positions` positions: q·k and the weighted sum of v.
inline double attention_flops(const finteam::Config& c, double positions) {
  return 4.0 * static_cast<double>(c.h * c.e) * positions;
}

/// Operations of a step: `rows` rows, all together seeing `positions` positions, and `logits` rows of logits.
inline double step_flops(const finteam::Config& c, double rows, double positions, double logits) {
  return 2 * block_weights(c) * rows + 2 * head_weights(c) * logits +
         static_cast<double>(c.layers) * attention_flops(c, positions);
}

}  // namespace bench
