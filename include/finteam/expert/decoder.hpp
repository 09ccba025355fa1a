// A decoder language model: rows of tokens to hidden states to logits, written once over the Backend concept.
// A step is a ragged batch of rows (law 2): prefill, decode, many requests and the scoring of labels are the same call.
#pragma once

#include <finteam/backend/fp_environment.hpp>
#include <finteam/core/interrupt.hpp>
#include <finteam/expert/block.hpp>
#include <finteam/layer/rope.hpp>

#include <algorithm>
#include <optional>
#include <span>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// One row of a step: a token at a position of a sequence of the cache.
struct Row {
  std::int32_t token = 0;
  std::int32_t position = 0;
  std::int32_t sequence = 0;
};

/// Working memory for steps of up to `rows` rows of one decoder; made once, nothing is allocated afterwards.
template <Backend B>
class StepScratch {
 public:
  StepScratch(B& b, const Config& c, index_t rows, std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : rows_(rows),
        x_(b.template tensor<float, 2>({rows, c.d}, memory)),
        block_{.input = b.input(rows, std::max({c.d, c.f, c.h * c.e}), memory),
               .attention = {.qkv = b.template tensor<float, 3>({rows, c.h + 2 * c.g, c.e}, memory),
                             .y = b.template tensor<float, 3>({rows, c.h, c.e}, memory),
                             .cosine = b.template tensor<float, 2>({rows, c.e / 2}, memory),
                             .sine = b.template tensor<float, 2>({rows, c.e / 2}, memory)},
               .feed_forward = {.y = b.template tensor<float, 2>({rows, c.f}, memory)}} {
    tokens_.reserve(static_cast<std::size_t>(rows));
    sites_.reserve(static_cast<std::size_t>(rows));
  }

  /// Bytes that are taken from `memory` for that.
  [[nodiscard]] static std::uint64_t bytes(const Config& c, index_t rows) {
    const index_t heads = c.h + 2 * c.g + c.h;
    return B::Input::bytes(rows, std::max({c.d, c.f, c.h * c.e})) +
           4 * static_cast<std::uint64_t>(rows * (c.d + heads * c.e + c.e + c.f));
  }

  /// Most rows of one step.
  [[nodiscard]] index_t rows() const noexcept { return rows_; }

 private:
  template <Backend>
  friend class Decoder;

  index_t rows_;
  decltype(std::declval<B&>().template tensor<float, 2>({}, nullptr)) x_;  // the residual stream, [rows, d]
  BlockScratch<B> block_;
  std::vector<std::int32_t> tokens_;
  std::vector<Site> sites_;
};

/// Immutable after loading; shared by threads, each with its own cache and scratch.
template <Backend B>
class Decoder {
 public:
  /// Throws Error for a tensor that is missing, misshapen, or that `config` has no place for.
  [[nodiscard]] static Decoder load(B& backend, const Checkpoint& checkpoint, const Config& config,
                                    const OpenOptions& options = {}) {
    return {config, load_weights(backend, checkpoint, config, options)};
  }

  [[nodiscard]] const Config& config() const noexcept { return config_; }

  /// Runs one step of t = rows.size() ≤ scratch.rows() rows: hidden[i,:] = norm(blocks(embed_tokens[rows[i].token])),
  /// hidden [t, d], overwritten. The cache must have been extended over every row's position, and earlier positions
  /// written by this or an earlier step; tokens must be in the vocabulary (the text room's ids are).
  /// Returns the interrupt's code if it was pending before some layer: hidden is then unfinished, and so are the new
  /// positions of the cache.
  [[nodiscard]] std::optional<Code> forward(B& b, KvCache<B>& cache, std::span<const Row> rows, StepScratch<B>& s,
                                            MatrixView<float, typename B::Space> hidden,
                                            const Interrupt& interrupt = {}) const {
    const FpEnvironment environment;
    const index_t t = static_cast<index_t>(rows.size());
    const auto x = s.x_.view().rows(0, t);
    s.tokens_.clear();
    s.sites_.clear();
    for (const Row& row : rows) {
      s.tokens_.push_back(row.token);
      s.sites_.push_back(cache.site(row.sequence, row.position));
    }
    auto& a = s.block_.attention;
    rope_angles(frequency_, s.sites_, a.cosine.view().rows(0, t), a.sine.view().rows(0, t));
    b.embed(w_.embed_tokens, s.tokens_, x);
    for (std::size_t l = 0; l < w_.blocks.size(); ++l) {
      if (const auto code = interrupt.pending()) return code;
      block<B>(b, w_.blocks[l], eps_, s.sites_, cache.layer(static_cast<index_t>(l)), s.block_, x);
    }
    b.rms_norm(x, w_.norm.view(), eps_, hidden);
    return std::nullopt;
  }

  /// logits[t,:] = lm_head · hidden[t,:]. hidden [t, d], t ≤ s.rows(), logits [t, v], overwritten.
  void logits(B& b, MatrixView<const float, typename B::Space> hidden, StepScratch<B>& s,
              MatrixView<float, typename B::Space> logits) const {
    b.prepare(hidden, w_.lm_head(), s.block_.input);
    b.matmul(s.block_.input, w_.lm_head(), Write::overwrite, logits);
  }

 private:
  Decoder(const Config& config, DecoderWeights<B> weights)
      : config_(config),
        eps_(static_cast<float>(config.rms_norm_eps)),
        frequency_(rope_frequencies(config)),
        w_(std::move(weights)) {}

  Config config_;
  float eps_;
  std::vector<float> frequency_;  // [e/2]
  DecoderWeights<B> w_;
};

}  // namespace finteam::inline FINTEAM_ABI
