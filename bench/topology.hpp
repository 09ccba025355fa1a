// Teams of three with random weights, in each form that a team can have: separate checkpoints, adapters or low-bit
// differences on one base, experts merged into one checkpoint. Written below the models' folder if they are not there.
// Not here: the checkpoints' own weights (random_checkpoint.hpp).
#pragma once

#include "random_checkpoint.hpp"

#include <finteam/expert/expert_source.hpp>
#include <finteam/file/checkpoint.hpp>
#include <finteam/file/delta.hpp>

#include <array>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace bench {

inline constexpr std::string_view topology_names[] = {"separate", "top1", "lora", "delta", "merged"};
inline constexpr std::string_view role_names[] = {"macro", "micro", "quant"};
inline constexpr int lora_rank = 16;

/// How far roles that were made to agree mostly are apart: 80 to 85 of 100 sampled tokens of one are the team's.
inline constexpr float role_noise = 0.008F;

/// bf16 tensors of a normal distribution, in a file of their own.
inline void write_random_tensors(const std::filesystem::path& path, const std::vector<std::string>& names,
                                 const std::vector<std::vector<index_t>>& shapes, std::uint64_t seed) {
  const RandomValues values(0.0F);
  std::vector<std::vector<finteam::bf16>> data;
  std::vector<finteam::TensorToWrite> tensors;
  for (std::size_t i = 0; i < names.size(); ++i) {
    std::size_t count = 1;
    for (const index_t e : shapes[i]) count *= static_cast<std::size_t>(e);
    data.emplace_back((count + 3) / 4 * 4);
    values.fill((seed << 20) + i, 0, data.back().data(), data.back().size());
    tensors.push_back({names[i], finteam::DType::bf16, shapes[i], std::as_bytes(std::span(data.back()).first(count))});
  }
  finteam::write_safetensors(path, tensors);
}

/// A LoRA adapter on every linear layer of the blocks.
inline void write_random_adapter(const std::filesystem::path& folder, const finteam::Config& c, std::uint64_t seed) {
  std::filesystem::create_directories(folder);
  std::vector<std::string> names;
  std::vector<std::vector<index_t>> shapes;
  for (const auto& entry : finteam::delta_table(c)) {
    for (const auto& part : entry.parts) {
      if (part.name == finteam::llama_names.lm_head) continue;
      const std::string module = "base_model.model." + part.name.substr(0, part.name.rfind(".weight"));
      names.push_back(module + ".lora_A.weight");
      shapes.push_back({lora_rank, entry.k});
      names.push_back(module + ".lora_B.weight");
      shapes.push_back({part.n, lora_rank});
    }
  }
  write_random_tensors(folder / "adapter_model.safetensors", names, shapes, seed);
  write_file(folder / "adapter_config.json",
             finteam::Json{{"peft_type", "LORA"}, {"r", lora_rank}, {"lora_alpha", lora_rank}}.dump(1));
}

/// A difference of one bit to every linear layer of the blocks, with scales for rows.
inline void write_random_delta(const std::filesystem::path& folder, const finteam::Checkpoint& base,
                               const finteam::Config& c, std::uint64_t seed) {
  std::filesystem::create_directories(folder);
  const std::string none(16, '0');
  const finteam::DeltaConfig config{.base_header_hash = finteam::header_hash(base), .base_hash = none};
  write_file(folder / "delta_config.json", config.json().dump(1));
  std::vector<finteam::TensorEntry> tensors;
  for (const auto& entry : finteam::delta_table(c)) {
    for (const auto& part : entry.parts) {
      if (part.name == finteam::llama_names.lm_head) continue;
      tensors.push_back({part.name + ".delta", "U8", {part.n, finteam::delta_row_bytes(config.format, entry.k)}});
      tensors.push_back({part.name + ".delta_scale", "F32", {part.n}});
    }
  }
  StreamedFile file(folder / "delta.safetensors");
  const std::string header = finteam::safetensors_header(
      tensors, {{"finteam_delta", std::to_string(finteam::DeltaConfig::version)}, {"base_hash", none}});
  file.write(header.data(), header.size());
  std::vector<std::uint64_t> bits;
  for (const finteam::TensorEntry& t : tensors) {
    if (t.type == "F32") {
      const std::vector<float> scales(static_cast<std::size_t>(t.shape[0]), 0.002F);
      file.write(scales.data(), 4 * scales.size());
      continue;
    }
    const auto bytes = static_cast<std::size_t>(t.shape[0] * t.shape[1]);
    bits.resize(bytes / 8 + 1);
    for (std::size_t i = 0; i < bits.size(); ++i) bits[i] = hash((seed++ << 8) + 1);
    file.write(bits.data(), bytes);
  }
}

/// The folder of a team of that topology, whose roles weigh alike (top1: one is awake).
inline std::filesystem::path random_team(const std::filesystem::path& models, const std::string& shape_name,
                                         const std::string& topology, const std::filesystem::path& tokenizer) {
  namespace fs = std::filesystem;
  const finteam::Config c = shape(shape_name);
  const auto base = random_checkpoint(models, c, tokenizer);
  const auto team = models / (shape_name + "-" + topology);
  fs::create_directories(team);
  write_file(team / "tokenizer.json", read_file(tokenizer));
  const auto link = [&](const fs::path& to, const std::string& name) {
    fs::remove(team / name);
    fs::create_directory_symlink(fs::absolute(to), team / name);
  };
  finteam::Json roles = finteam::Json::array();
  for (const auto name : role_names) roles.push_back({{"name", name}, {"path", name}});
  finteam::Json json = {
      {"finteam", 1},
      {"roles", roles},
      {"chat", "llama-3"},
      {"gate", {{"reads", "prior"}, {"prior", {1.2, 1.0, 1.0}}, {"top_k", topology == "top1" ? 1 : 3}}}};
  if (topology == "separate" || topology == "top1") {
    // three of the largest shape would fill a disk: its roles share one checkpoint's files, and no memory
    const bool apart = topology == "separate" && c.d <= 2048;
    for (std::uint64_t k = 0; k < 3; ++k) {
      const Noise noise{k, apart && k > 0 ? role_noise : 0.0F};
      link(random_checkpoint(models, c, tokenizer, noise), std::string(role_names[k]));
    }
  } else if (topology == "merged") {
    finteam::Config routed = c;
    routed.model_type = "mixtral";
    routed.experts = 3;
    routed.experts_per_token = 2;
    link(random_checkpoint(models, routed, tokenizer), "merged");
    for (auto& role : json["roles"]) role.erase("path");
    json.erase("gate");
    json["merged"] = "merged";
  } else {
    link(base, "base");
    json["base"] = "base";
    const auto weights = finteam::Checkpoint::open(base);
    for (std::uint64_t k = 0; k < 3; ++k) {
      if (topology == "lora") write_random_adapter(team / role_names[k], c, k + 1);
      if (topology == "delta") write_random_delta(team / role_names[k], weights, c, (k + 1) << 32);
    }
  }
  write_file(team / "team.json", json.dump(1));
  return team;
}

}  // namespace bench
