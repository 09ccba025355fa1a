// What a folder is, as a report: every section in its order. Nothing but headers and configs is read.
#pragma once

#include "folder.hpp"
#include "model.hpp"
#include "text.hpp"

#include <finteam/team/plan.hpp>

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace inspect {

inline void add_topology(const Folder& folder, Report& report) {
  const finteam::Manifest& m = folder.manifest;
  Section s{"folder", "folder"};
  Json roles = Json::array();
  std::string names;
  for (const auto& role : m.roles) {
    roles.push_back({{"name", role.name}, {"path", role.path}});
    names += (names.empty() ? "" : ", ") + role.name + (role.path == role.name ? "" : " (" + role.path + ")");
  }
  constexpr std::array<std::string_view, 4> mixes{"probabilities", "logits", "deltas", "experts"};
  s.add("path", folder.path.string());
  s.add("topology", folder.is_merged()   ? "experts merged into one checkpoint"
                    : !m.base.empty()    ? folder.is_team ? "roles on a shared base" : "an adapter on a base"
                    : m.roles.size() > 1 ? "separate experts"
                    : folder.is_team     ? "a team of one"
                                         : "one checkpoint");
  if (folder.is_team) {
    s.add("roles", std::move(roles), names);
    s.add("mix_in", mixes[static_cast<std::size_t>(m.mix_in)]);
  }
  if (!folder.base.empty()) s.add("base", folder.base);
  report.add(std::move(s));
}

inline void add_models(const Folder& folder, Report& report) {
  for (const Model& model : folder.models) {
    Section s{"models", "model", model.name};
    s.add("path", model.path, "");
    if (model.config) {
      s.add("family", model.config->model_type);
      add_attention(s, *model.config);
      add_differences(s, *model.config);
      add_sizes(s, *model.config);
    } else {
      s.add("family", nullptr, "unknown: config.json is not understood");
    }
    if (model.checkpoint) {
      std::vector<const finteam::Safetensors*> files;
      for (const auto& shard : model.checkpoint->shards()) files.push_back(&shard);
      add_files(s, files);
    }
    report.add(std::move(s));
  }
  for (const Addition& addition : folder.additions) {
    Section s{"additions", "role", addition.name};
    s.add("path", addition.path, "");
    if (addition.expert) add_expert(s, folder.experts[*addition.expert]);
    report.add(std::move(s));
  }
}

/// What team.json says of the gate; its file must hold what it needs.
inline void add_gate(const Folder& folder, Report& report) {
  Section s{"gate", "gate"};
  const auto& gate = folder.manifest.gate;
  const auto* config =
      folder.models.empty() || !folder.models.front().config ? nullptr : &*folder.models.front().config;
  if (folder.is_merged()) {
    s.add("reads", "routers", "the checkpoint's own routers");
    s.add("per", "token and layer");
    if (config != nullptr) s.add("top_k", config->experts_per_token);
  } else if (!gate) {
    s.add("reads", nullptr, "none: one role");
  } else {
    const auto& roles = folder.manifest.roles;
    s.add("reads", finteam::gate_reads_names[static_cast<std::size_t>(gate->reads)]);
    if (gate->is_linear()) {
      s.add("of", gate->of < roles.size() ? roles[gate->of].name : "base");
      s.add("file", gate->file);
    }
    if (gate->layer) s.add("layer", *gate->layer);
    s.add("per", gate->per_token ? "token" : "prompt");
    s.add("top_k", gate->rule.top_k);
    s.add("temperature", gate->rule.temperature);
    if (gate->rule.floor > 0) s.add("floor", gate->rule.floor);
    if (!gate->rule.renormalise) s.add("renormalise", false);
    if (!gate->prior.empty()) s.add("prior", gate->prior);
    const std::size_t read = folder.manifest.base.empty() ? gate->of : 0;
    if (read < folder.models.size() && folder.models[read].config) {
      report.attempt([&] {
        return finteam::detail::open_gate(folder.path, folder.where, *gate, static_cast<index_t>(roles.size()),
                                          *folder.models[read].config);
      });
    }
  }
  report.add(std::move(s));
}

/// Bytes of the weights if every matrix is kept as `weights` says, as finteam::plan counts them.
[[nodiscard]] inline Json memory_as(const Folder& folder, finteam::Weights weights) {
  const finteam::OpenOptions options{.weights = weights};
  std::uint64_t total = 0;
  Json parts = Json::object();
  const auto count = [&](const std::string& name, std::uint64_t bytes) {
    parts[name] = bytes;
    total += bytes;
  };
  for (const Model& model : folder.models) {
    std::uint64_t bytes = 0;
    for (finteam::SourceWeight w : model.weights) {
      if (!w.is_vector() && !w.entry.is_router) w.weights = weights;
      bytes += w.bytes();
    }
    count(model.name, bytes);
  }
  for (const Addition& addition : folder.additions) {
    if (!addition.expert) continue;
    count(addition.name, finteam::expert_bytes(folder.experts[*addition.expert], finteam::own_norms(folder.experts),
                                               *folder.models.front().config, options));
  }
  return {{"total", total}, {"parts", parts}};
}

/// Bytes that weights take in each format, and a session's keys and values for each token.
inline void add_memory(const Folder& folder, Report& report) {
  Section s{"memory", "memory"};
  bool all = !folder.models.empty();
  for (const Model& model : folder.models) all = all && !model.weights.empty();
  if (!all) s.add("weights", nullptr, "unknown: not all tensors are understood");
  using finteam::Weights, finteam::CacheFormat;
  for (const Weights weights : {Weights::stored, Weights::bf16, Weights::int8, Weights::int4, Weights::int4_zero}) {
    if (!all) break;
    Json bytes = memory_as(folder, weights);
    std::string text = in_bytes(bytes["total"].get<std::uint64_t>());
    if (bytes["parts"].size() > 1) {
      std::string parts;
      for (const auto& [name, part] : bytes["parts"].items()) {
        parts += (parts.empty() ? "" : ", ") + name + ' ' + in_bytes(part.get<std::uint64_t>());
      }
      text += ": " + parts;
    }
    s.add("weights_" + std::string(name(weights)), std::move(bytes), text);
  }
  for (const CacheFormat format : {CacheFormat::f32, CacheFormat::bf16, CacheFormat::int8}) {
    std::uint64_t page = 0;
    for (const Model& model : folder.models) {
      if (model.config) page += finteam::detail::cache_page_bytes(*model.config, format);
    }
    if (page == 0) break;
    const double token = static_cast<double>(page * static_cast<std::uint64_t>(folder.manifest.lanes())) /
                         static_cast<double>(finteam::page_tokens);
    s.add("cache_of_a_token_" + std::string(name(format)), token, in_bytes(static_cast<std::uint64_t>(token)));
  }
  report.add(std::move(s));
}

/// What the folder at `path` is; base: that of an adapter or a difference, if the folder is one. Does not throw for
/// what a folder holds: what is refused stands in the report.
[[nodiscard]] inline Report inspect_folder(const std::filesystem::path& path, const std::filesystem::path& base = {}) {
  Report report;
  const Folder folder = open_folder(path, base, report);
  add_topology(folder, report);
  add_models(folder, report);
  add_gate(folder, report);
  const auto tokenizer = add_tokenizer(folder, report);
  add_chat(folder, tokenizer, report);
  add_tasks(folder, report);
  add_memory(folder, report);
  // What opening refuses besides: roles that contradict each other.
  if (base.empty() && !folder.models.empty()) report.attempt([&] { return finteam::plan(path); });
  return report;
}

}  // namespace inspect
