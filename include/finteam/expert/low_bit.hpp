// A fine-tuned checkpoint as a low-bit difference to a shared base (tools/make_delta), as an expert on that base.
// Not here: the files' form (file/delta.hpp).
#pragma once

#include <finteam/expert/expert_source.hpp>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// The differences to the parts of an entry: all of them, or none. Throws Error(unsupported) for some.
[[nodiscard]] inline DeltaSource low_bit_delta(const DeltaCheckpoint& delta, const WeightEntry& entry) {
  DeltaSource source;
  for (const auto& part : entry.parts) {
    if (const RawDelta* const raw = delta.find(part.name)) source.whole.push_back(*raw);
  }
  if (source.whole.empty() || source.whole.size() == entry.parts.size()) return source;
  throw Error(Code::unsupported, delta.file().where() + ": " + entry.parts.front().name,
              "differences to all matrices that one product reads, or to none", "to some of them");
}

}  // namespace detail

/// The difference in `folder` to a base of that config. Errors as DeltaCheckpoint::open, and Error(unsupported) for a
/// tensor that the decoder has no place for.
[[nodiscard]] inline ExpertSource open_low_bit(const std::filesystem::path& folder, const Checkpoint& base,
                                               const Config& config, BaseCheck check = BaseCheck::headers) {
  if (config.is_routed()) {
    throw Error(Code::unsupported, config.where, "a plain model under differences", "experts behind routers");
  }
  if (config.fused_projections) {
    throw Error(Code::unsupported, config.where, "projections of their own under differences", "fused ones");
  }
  ExpertSource expert;
  DeltaCheckpoint delta = DeltaCheckpoint::open(folder, base, check);
  std::size_t known = 0;
  for (const WeightEntry& entry : delta_table(config)) {
    expert.deltas.push_back(detail::low_bit_delta(delta, entry));
    known += expert.deltas.back().whole.size();
  }
  const auto whole = [&](std::string_view name) -> std::optional<RawTensor> {
    const RawTensor* const raw = delta.find_whole(name);
    known += raw != nullptr ? 1 : 0;
    return raw != nullptr ? std::optional(*raw) : std::nullopt;
  };
  expert.embed_tokens = whole(llama_names.embed_tokens);
  expert.lm_head = whole(llama_names.lm_head);
  if (config.tie_word_embeddings) {
    const auto& embed = expert.embed_tokens;
    if (expert.lm_head && (!embed || !std::ranges::equal(detail::data_of(*expert.lm_head), detail::data_of(*embed)))) {
      throw Error(Code::mismatch, delta.file().where() + ": " + std::string(llama_names.lm_head),
                  "the bytes of embed_tokens, which the base ties to it", "others");
    }
    expert.lm_head = embed;
  }
  for (const std::string& name : norm_names(config)) expert.norms.push_back(whole(name));
  if (known != delta.deltas().size() + delta.whole().size()) {
    throw Error(Code::unsupported, delta.file().where(),
                "linear layers and norms of blocks, embed_tokens and lm_head only", "others");
  }
  expert.delta_file = std::move(delta);
  return expert;
}

}  // namespace finteam::inline FINTEAM_ABI
