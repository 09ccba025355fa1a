// A model's section: family and named differences, sizes, tensors; and that of what a role adds to a base.
// Not here: opening (folder.hpp), what a team is (team.hpp).
#pragma once

#include "report.hpp"

#include <finteam/expert/expert_source.hpp>
#include <finteam/expert/weight_table.hpp>
#include <finteam/file/checkpoint.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace inspect {

using finteam::Config, finteam::index_t;

/// "0-3, 5": increasing numbers; only the first of many runs.
[[nodiscard]] inline std::string ranges(const std::vector<index_t>& numbers) {
  constexpr int most = 8;
  std::string all;
  int runs = 0;
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const std::size_t first = i;
    while (i + 1 < numbers.size() && numbers[i + 1] == numbers[i] + 1) ++i;
    if (++runs > most) return all + ", …: " + std::to_string(numbers.size()) + " in all";
    all += (all.empty() ? "" : ", ") + std::to_string(numbers[first]);
    if (i > first) all += '-' + std::to_string(numbers[i]);
  }
  return all;
}

/// The layers that a question is true of.
template <class Is>
[[nodiscard]] std::vector<index_t> layers_where(const Config& c, Is&& is) {
  std::vector<index_t> layers;
  for (index_t l = 0; l < c.layers; ++l) {
    if (is(l)) layers.push_back(l);
  }
  return layers;
}

inline void add_rope(Section& s, std::string key, const finteam::RopeConfig& rope) {
  using finteam::RopeType;
  constexpr std::array<std::string_view, 5> names{"default", "linear", "llama3", "yarn", "longrope"};
  const std::string type(names[static_cast<std::size_t>(rope.type)]);
  Json numbers = {{"theta", rope.theta}};
  const auto add = [&](const char* name, double value, double plain_value) {
    if (value != plain_value) numbers[name] = value;
  };
  add("share_of_head", rope.share, 1);
  add("factor", rope.factor, 0);
  add("low_freq_factor", rope.low_freq_factor, 0);
  add("high_freq_factor", rope.high_freq_factor, 0);
  add("attention_factor", rope.attention_factor, 1);
  add("beta_fast", rope.beta_fast, 0);
  add("beta_slow", rope.beta_slow, 0);
  if (rope.original_max_positions != 0) numbers["original_max_positions"] = rope.original_max_positions;
  const std::string text = type + ", " + plain(numbers);
  numbers["type"] = type;
  s.add(std::move(key), std::move(numbers), text);
}

inline void add_attention(Section& s, const Config& c) {
  if (c.window > 0) {
    const auto layers = layers_where(c, [&](index_t l) { return c.has_window(l); });
    const bool all = static_cast<index_t>(layers.size()) == c.layers;
    s.add("window", {{"positions", c.window}, {"layers", layers}},
          grouped(c.window) + " positions, in " + (all ? "every layer" : "layers " + ranges(layers)));
  }
  add_rope(s, "rope", c.rope);
  if (c.window_rope) add_rope(s, "window_rope", *c.window_rope);
  if (!c.rotates.empty()) {
    const auto layers = layers_where(c, [&](index_t l) { return !c.has_rope(l); });
    s.add("layers_without_rope", layers, layers.empty() ? "none" : ranges(layers));
  }
  if (c.sinks) s.add("attention_sinks", true);
}

inline void add_quantization(Section& s, const finteam::Quantization& q) {
  using Method = finteam::Quantization::Method;
  if (q.method == Method::none) return;
  constexpr std::array<std::string_view, 6> names{"none", "fp8", "mxfp4", "gptq", "awq", "compressed-tensors"};
  Json facts = {{"method", names[static_cast<std::size_t>(q.method)]}};
  if (q.group != 0) facts["group"] = q.group;
  if (q.block[0] != 0) facts["block"] = q.block;
  s.add("stored_as", std::move(facts));
}

/// What differs from Llama: a key that is not there is as Llama's.
inline void add_differences(Section& s, const Config& c) {
  Json biases = Json::array(), norms = Json::object(), caps = Json::object(), scales = Json::object();
  if (c.qkv_bias) biases.insert(biases.end(), {"q_proj", "k_proj", "v_proj"});
  if (c.o_bias) biases.push_back("o_proj");
  if (c.mlp_bias) biases.insert(biases.end(), {"gate_proj", "up_proj", "down_proj"});
  if (c.router_bias) biases.push_back("router");
  if (c.norms != finteam::NormPlace::before) {
    norms["place"] = c.norms == finteam::NormPlace::behind ? "behind" : "around";
  }
  if (c.norms_add_one) norms["add_one"] = true;
  if (c.head_norm != finteam::HeadNorm::none) {
    norms["of_heads"] = c.head_norm == finteam::HeadNorm::each ? "each" : "together";
  }
  if (c.score_cap != 0) caps["scores"] = c.score_cap;
  if (c.logit_cap != 0) caps["logits"] = c.logit_cap;
  if (c.embedding_scale != 1) scales["embedding"] = c.embedding_scale;
  if (c.score_scale != 0) scales["scores"] = c.score_scale;
  for (auto& [key, value] : {std::pair{"biases", &biases}, {"norms", &norms}, {"caps", &caps}, {"scales", &scales}}) {
    if (!value->empty()) s.add(key, std::move(*value));
  }
  if (c.activation.kind == finteam::Activation::Kind::gelu_tanh) s.add("activation", "gelu_tanh");
  if (c.activation.kind == finteam::Activation::Kind::clamped_silu) {
    s.add("activation", {{"clamped_silu", {{"alpha", c.activation.alpha}, {"limit", c.activation.limit}}}});
  }
  if (c.fused_projections) s.add("fused_projections", true);
  add_quantization(s, c.quantization);
  if (c.tie_word_embeddings) s.add("tied_embeddings", true);
  if (!c.is_routed()) return;
  Json experts = {
      {"count", c.experts}, {"per_token", c.experts_per_token}, {"weights_sum_to_one", c.experts_renormalise}};
  std::string text = std::to_string(c.experts_per_token) + " of " + std::to_string(c.experts) + " for a token" +
                     (c.experts_renormalise ? "" : ", weights not renormalised");
  if (c.routes_linears()) {
    experts["linear_layers"] = c.router_layers;
    experts["layers"] = c.router_layers_index;
    text += ", in " + plain(experts["linear_layers"]) + " of layers " + ranges(c.router_layers_index);
  }
  s.add("experts", std::move(experts), text);
}

/// How many numbers a decoder is made of, and how many of them a token meets.
inline void add_parameters(Section& s, const Config& c) {
  std::uint64_t all = 0, experts = 0;
  for (const finteam::WeightEntry& w : finteam::weight_table(c)) {
    std::uint64_t n = 0;
    for (const auto& part : w.parts) n += static_cast<std::uint64_t>(part.n);
    n *= static_cast<std::uint64_t>(std::max<index_t>(w.k, 1));
    (w.expert ? experts : all) += n;
  }
  const std::uint64_t active =
      all + experts / static_cast<std::uint64_t>(c.experts) * static_cast<std::uint64_t>(c.experts_per_token);
  s.add("parameters", all + experts);
  if (c.is_routed()) s.add("parameters_of_a_token", active);
}

inline void add_sizes(Section& s, const Config& c) {
  Json sizes = {{"v", c.v}, {"d", c.d}, {"layers", c.layers}, {"h", c.h}, {"g", c.g}, {"e", c.e}, {"f", c.f}};
  std::string text;
  for (const char* name : {"v", "d", "layers", "h", "g", "e", "f"}) {
    text += (text.empty() ? "" : ", ") + (name + (' ' + plain(sizes[name])));
  }
  s.add("sizes", std::move(sizes), text);
  s.add("context", c.max_positions);
  add_parameters(s, c);
}

/// The files' tensors by their type, and the files.
inline void add_files(Section& s, const std::vector<const finteam::Safetensors*>& files) {
  struct Sum {
    std::uint64_t tensors = 0, bytes = 0;
  };
  std::map<std::string, Sum> types;
  Json shards = Json::array(), tensors = Json::object();
  std::string shard_text, text;
  std::uint64_t bytes = 0;
  for (const finteam::Safetensors* file : files) {
    for (const std::string_view name : file->names()) {
      const auto stored = file->stored(name);
      Sum& sum = types[std::string(stored->type)];
      ++sum.tensors;
      sum.bytes += stored->bytes.size();
    }
    const std::uint64_t size = file->header().size() + file->bytes();
    shards.push_back({{"file", file->where()}, {"bytes", size}});
    bytes += size;
  }
  for (const auto& [type, sum] : types) {
    tensors[type] = {{"tensors", sum.tensors}, {"bytes", sum.bytes}};
    text += (text.empty() ? "" : ", ") + grouped(sum.tensors) + ' ' + type + " of " + in_bytes(sum.bytes);
  }
  s.add("tensors", std::move(tensors), text.empty() ? "none" : text);
  s.add("shards", std::move(shards),
        std::to_string(files.size()) + (files.size() == 1 ? " file of " : " files of ") + in_bytes(bytes));
}

/// What an adapter or a difference adds to its base.
inline void add_expert(Section& s, const finteam::ExpertSource& expert) {
  std::set<index_t> ranks;
  std::size_t changed = 0;
  for (const finteam::DeltaSource& delta : expert.deltas) {
    for (const auto& pair : delta.pairs) ranks.insert(pair.a.shape[0]);
    changed += delta.pairs.size() + delta.whole.size();
  }
  s.add("kind", expert.delta_file ? "low-bit difference" : "LoRA adapter");
  if (expert.delta_file) s.add("bits", finteam::bits_of(expert.delta_file->config().format));
  if (!ranks.empty()) s.add("ranks", std::vector<index_t>(ranks.begin(), ranks.end()));
  s.add("matrices_added_to", changed);
  const auto norms = std::count_if(expert.norms.begin(), expert.norms.end(), [](const auto& n) { return bool(n); });
  Json own = Json::array();
  if (expert.embed_tokens) own.push_back("embed_tokens");
  if (expert.lm_head) own.push_back("lm_head");
  if (norms > 0) own.push_back(std::to_string(norms) + " norms");
  if (!own.empty()) s.add("own_tensors", std::move(own));
  add_files(s, {expert.delta_file ? &expert.delta_file->file() : &*expert.file});
}

}  // namespace inspect
