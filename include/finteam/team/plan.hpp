// What a team and a session on it will take in memory, known from the headers of its files.
// Not here: what does not grow with weights, contexts or rows (tokenizer, tasks, strings: some megabytes).
#pragma once

#include <finteam/team/session.hpp>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// Bytes of memory.
struct Plan {
  struct Role {
    std::string name;
    std::uint64_t weights = 0;
  };
  std::vector<Role> roles;                  ///< in team.json's order; on a base, or merged: what each adds
  std::uint64_t base = 0;                   ///< weights that roles share
  std::uint64_t weights = 0;                ///< all of them: the same whether they are packed on opening or mapped
  std::uint64_t largest_tensor = 0;         ///< of the files: what opening may hold besides weights while it packs
  std::uint64_t cache_per_1000_tokens = 0;  ///< keys and values in all roles
  std::uint64_t cache = 0;                  ///< of one session: room for its longest prompt and its labels in all roles
  std::uint64_t scratch = 0;                ///< of one session: the rows of a step in all roles, logits
};

namespace detail {

/// Bytes of the keys and values of one page of tokens in all layers.
[[nodiscard]] inline std::uint64_t cache_page_bytes(const Config& c, CacheFormat format) {
  return static_cast<std::uint64_t>(c.layers * c.g * Cpu::page_bytes(format, c.e));
}

}  // namespace detail

/// What open_team(folder, options) and then Session(team, limits) take on the CPU backend. Nothing but configs and
/// headers is read, and nothing large allocated. Errors as open_team and Session, as far as those files tell.
[[nodiscard]] inline Plan plan(const std::filesystem::path& folder, const OpenOptions& options = {},
                               const SessionLimits& session = {}) {
  const detail::TeamFiles files = detail::open_team_files(folder, BaseCheck::headers);
  const SessionLimits limits = detail::checked(session, files.context());
  Plan plan;
  const index_t lanes = files.manifest.lanes();
  for (std::size_t k = 0; k < files.manifest.roles.size(); ++k) {
    plan.roles.push_back({files.manifest.roles[k].name});
    if (k >= files.experts.size()) continue;
    plan.roles[k].weights = expert_bytes(files.experts[k], own_norms(files.experts), files.configs.front(), options);
    plan.weights += plan.roles[k].weights;
  }
  for (std::size_t k = 0; k < files.configs.size(); ++k) {
    const Config& c = files.configs[k];
    const DeltaShape deltas = DeltaShape::of(files.experts, c);
    const index_t rows = Reader<Cpu>::step_rows(lanes, limits);
    for (const SourceWeight& w : find_weights(files.checkpoints[k], c, options)) {
      const std::size_t role = files.manifest.merged.empty() ? k : static_cast<std::size_t>(w.entry.expert.value_or(0));
      const bool own = files.manifest.merged.empty() ? files.experts.empty() : w.entry.expert.has_value();
      (own ? plan.roles[role].weights : plan.base) += w.bytes();
      plan.weights += w.bytes();
      plan.largest_tensor = std::max(plan.largest_tensor, w.source_bytes + w.decoded_bytes());
    }
    const std::uint64_t page = detail::cache_page_bytes(c, limits.cache);
    plan.cache_per_1000_tokens += 1000 * static_cast<std::uint64_t>(lanes) * page / page_tokens;
    plan.cache += static_cast<std::uint64_t>(Reader<Cpu>::cache_limits(c, lanes, limits).pages) * page;
    const index_t answers = files.manifest.merged.empty() ? lanes : static_cast<index_t>(plan.roles.size()) + 1;
    plan.scratch += StepScratch<Cpu>::bytes(c, rows, deltas) + RoutingRecord::bytes(c, limits.tokens) +
                    4 * static_cast<std::uint64_t>((2 * rows + lanes) * c.d + answers * Reader<Cpu>::logit_rows * c.v);
  }
  return plan;
}

}  // namespace finteam::inline FINTEAM_ABI
