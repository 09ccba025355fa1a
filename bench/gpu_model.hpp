// Decoders on a GPU as the benches step them: one or several, or one with adapters, all in one step that becomes one
// graph. gpu_model.cpp alone compiles the decoder. Not here: what is asked of them.
#pragma once

#include "gpu.hpp"

#include <memory>

namespace bench {

/// Decoders with random weights, each with a cache for a sequence of each of its roles.
class GpuDecoders {
 public:
  /// roles: adapters of rank 16 on each decoder, 0: none; tokens of a sequence; rows: of one step, of each decoder.
  /// Throws Error(limit_exceeded) if the device has not as much memory.
  GpuDecoders(const GpuRun& run, const std::string& weights, index_t decoders, index_t roles, index_t tokens,
              index_t rows);
  ~GpuDecoders();

  /// Says one step of every decoder: `count` tokens from `first` on in each sequence, and the last one's logits.
  void record(finteam::RowKind kind, index_t first, index_t count);
  /// Until it has run, and the likeliest token of the mixture of all decoders and roles is known.
  void run();
  /// The logits of all decoders and roles, after run().
  [[nodiscard]] std::vector<float> logits();
  /// Reads tokens 0 … tokens - 1, in steps of up to so many rows.
  void read(index_t tokens, index_t rows);

  /// Bytes that a step of one token must read when `context` tokens stand before it: weights, keys and values.
  [[nodiscard]] double bytes(index_t context) const;
  /// Graphs that steps have become.
  [[nodiscard]] std::size_t graphs() const;

 private:
  struct Engine;
  std::unique_ptr<Engine> engine_;
};

/// Two layers of the same widths, and a vocabulary of 4,096, on the GPU and on the reference backend: the logits of a
/// prompt's last token and of one that follows it. Ten seconds and more of the host, so once for each.
Verdict check_widths(GpuRun& run, const std::string& weights, index_t roles);

}  // namespace bench
