// What an expert on a shared base brings, found in its files and checked, before anything of it is loaded: what it adds
// to the base's matrices, and whole matrices of its own. Not here: the files' forms (lora.hpp), loading (experts.hpp).
#pragma once

#include <finteam/expert/weight_table.hpp>
#include <finteam/file/delta.hpp>
#include <finteam/file/safetensors.hpp>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// scale · b · a · x is added to the outputs first … first + n - 1 of an entry of the weight table.
struct LowRankPair {
  RawTensor a;  ///< [r, k]
  RawTensor b;  ///< [n, r]
  float scale = 1;
  index_t first = 0;

  /// r, made even: where the next pair's inputs begin.
  [[nodiscard]] index_t inner() const noexcept { return a.shape[0] + a.shape[0] % 2; }
};

/// What an expert adds to one entry of the weight table. Empty: nothing.
struct DeltaSource {
  std::vector<LowRankPair> pairs{};
  std::vector<RawDelta> whole{};  ///< one for each part of the entry, or none

  [[nodiscard]] bool empty() const noexcept { return pairs.empty() && whole.empty(); }
  /// Σ r, each made even.
  [[nodiscard]] index_t rank() const noexcept {
    index_t sum = 0;
    for (const LowRankPair& pair : pairs) sum += pair.inner();
    return sum;
  }
};

/// An expert of a shared base.
struct ExpertSource {
  std::vector<DeltaSource> deltas{};                   ///< by entry of delta_table
  std::optional<RawTensor> embed_tokens{}, lm_head{};  ///< [v, d], in place of the base's
  std::vector<std::optional<RawTensor>> norms{};       ///< in place of the base's, by entry of norm_names; or empty
  std::optional<Safetensors> file{};                   ///< that the tensors lie in
  std::optional<DeltaCheckpoint> delta_file{};         ///< or this

  /// Whether it is more than what it adds.
  [[nodiscard]] bool has_own() const noexcept { return embed_tokens || lm_head || has_norms(); }
  [[nodiscard]] bool has_norms() const noexcept {
    return std::any_of(norms.begin(), norms.end(), [](const auto& norm) { return norm.has_value(); });
  }
};

/// The norms of the weight table that are as wide as the model: those of every block, and the last.
[[nodiscard]] inline std::vector<std::string> norm_names(const Config& config) {
  std::vector<std::string> names;
  for (const WeightEntry& w : weight_table(config)) {
    if (w.is_norm) names.push_back(w.parts.front().name);
  }
  return names;
}

/// The entries of the weight table that can be added to: its matrices but the embedding, lm_head last, tied or not.
[[nodiscard]] inline std::vector<WeightEntry> delta_table(Config config) {
  config.tie_word_embeddings = false;
  std::vector<WeightEntry> table = weight_table(config);
  std::erase_if(table,
                [](const WeightEntry& w) { return w.k == 0 || w.parts.front().name == llama_names.embed_tokens; });
  return table;
}

}  // namespace finteam::inline FINTEAM_ABI
