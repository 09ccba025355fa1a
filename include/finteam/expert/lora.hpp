// A LoRA adapter as PEFT writes it: adapter_config.json and adapter_model.safetensors. Each linear layer of the base
// may have a pair A [r, k], B [n, r], which adds scale · B·A·x; modules_to_save are an embedding, a head or norms
// instead of the base's. Refused by name: what changes the mathematics otherwise (DoRA, biases, linear layers saved
// whole).
#pragma once

#include <finteam/expert/expert_source.hpp>
#include <finteam/file/checkpoint.hpp>
#include <finteam/file/json_view.hpp>
#include <finteam/text/pattern.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// What adapter_config.json says of sizes and scales.
class LoraConfig {
 public:
  /// Some entries for every module of a large model; every pattern is compiled, and tried on every module.
  static constexpr JsonLimits limits{.depth = 16, .values = 10'000, .bytes = 1 << 20};
  static constexpr std::size_t most_patterns = 2048;

  /// Throws Error: unsupported for an adapter that is more than LoRA, malformed or not_found for what is not there.
  explicit LoraConfig(const JsonView& json) {
    if (json.at("peft_type").as_string() != "LORA") json.at("peft_type").refuse("\"LORA\"", Code::unsupported);
    refuse_more(json);
    r_ = static_cast<double>(json.at("r").as_int(1, 65'536));
    alpha_ = json.at("lora_alpha").as_number(-1e6, 1e6);
    rank_stabilised_ = json.bool_or("use_rslora", false);
    read_patterns(json, "rank_pattern", ranks_);
    read_patterns(json, "alpha_pattern", alphas_);
  }

  /// The rank of a module's pair. Throws Error(unsupported) if two patterns fit and differ.
  [[nodiscard]] index_t rank(std::string_view module) const {
    return static_cast<index_t>(pattern_or(ranks_, module, r_));
  }
  /// α/r, or α/√r. Source: Hu et al. 2021, 4.1; Kalajdzievski 2023 (rsLoRA).
  [[nodiscard]] float scale(std::string_view module) const {
    const double r = static_cast<double>(rank(module)), alpha = pattern_or(alphas_, module, alpha_);
    return static_cast<float>(alpha / (rank_stabilised_ ? std::sqrt(r) : r));
  }

 private:
  /// A value for the modules whose whole name, or what follows a dot in it, the pattern fits.
  struct ForModules {
    Pattern pattern;
    double value;
    std::string where;
  };

  static void refuse_more(const JsonView& json) {
    for (const std::string_view key : {"use_dora", "lora_bias", "fan_in_fan_out", "use_qalora", "use_bdlora"}) {
      if (const auto x = json.find(key); x && !(x->json().is_boolean() && !x->as_bool())) {
        x->refuse("false", Code::unsupported);
      }
    }
    if (const auto bias = json.find("bias"); bias && bias->as_string() != "none") {
      bias->refuse("\"none\"", Code::unsupported);
    }
    for (const std::string_view key : {"layer_replication", "trainable_token_indices", "target_parameters",
                                       "alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config"}) {
      if (const auto x = json.find(key); x && !x->json().empty()) x->refuse("null", Code::unsupported);
    }
    // The other starts change the base, which is then not the one that the adapter's own words name.
    if (const auto x = json.find("init_lora_weights"); x && x->is_string()) {
      if (x->as_string() != "gaussian" && x->as_string() != "eva" && x->as_string() != "orthogonal") {
        x->refuse("true, false, gaussian, orthogonal or eva", Code::unsupported);
      }
    }
  }

  static void read_patterns(const JsonView& json, std::string_view key, std::vector<ForModules>& patterns) {
    const auto object = json.find(key);
    if (!object) return;
    if (object->json().size() > most_patterns) {
      object->refuse("at most " + std::to_string(most_patterns) + " patterns", Code::limit_exceeded);
    }
    object->each_member([&](std::string_view pattern, const JsonView& value) {
      const double number =
          key == "rank_pattern" ? static_cast<double>(value.as_int(1, 65'536)) : value.as_number(-1e6, 1e6);
      patterns.push_back(
          {Pattern("(?:.*\\.)?(?:" + std::string(pattern) + ")(?!.)", value.where()), number, value.where()});
    });
  }

  [[nodiscard]] static double pattern_or(const std::vector<ForModules>& patterns, std::string_view module,
                                         double otherwise) {
    const ForModules* found = nullptr;
    Pattern::Scratch scratch;
    for (const ForModules& candidate : patterns) {
      Pattern::Search search(candidate.pattern, scratch, module);
      if (!search.next() || search.begin() != 0) continue;
      if (found != nullptr && found->value != candidate.value) {
        throw Error(Code::unsupported, candidate.where, "one pattern for " + std::string(module),
                    "another at " + found->where);
      }
      found = &candidate;
    }
    return found != nullptr ? found->value : otherwise;
  }

  double r_ = 1, alpha_ = 1;
  bool rank_stabilised_ = false;
  std::vector<ForModules> ranks_, alphas_;
};

namespace detail {

/// The tensors of an adapter_model.safetensors for a base of that config, each taken once.
class LoraFile {
 public:
  LoraFile(Safetensors file, const LoraConfig& lora) : file_(std::move(file)), lora_(lora) {}

  /// The pair for the tensor `name` [n, k] of the base, if there is one. Throws Error(not_found) for half a pair,
  /// Error(mismatch) for other shapes.
  [[nodiscard]] std::optional<LowRankPair> pair(std::string_view name, index_t n, index_t k) {
    const std::string module(name.substr(0, name.rfind(".weight")));
    const std::string a = "base_model.model." + module + ".lora_A.weight";
    const std::string b = "base_model.model." + module + ".lora_B.weight";
    if (!file_.contains(a) && !file_.contains(b)) return std::nullopt;
    const index_t r = lora_.rank(module);
    return LowRankPair{take(a, std::array{r, k}), take(b, std::array{n, r}), lora_.scale(module)};
  }

  /// A whole matrix or norm in place of the base's, if there is one that differs. PEFT writes what was to be saved
  /// under its own name, and an embedding or a head that has a pair as `base_layer`, changed or not.
  [[nodiscard]] std::optional<RawTensor> own(std::string_view name, std::span<const index_t> shape,
                                             const Checkpoint& base) {
    const std::string module = "base_model.model." + std::string(name.substr(0, name.rfind(".weight")));
    for (const std::string& key : {module + ".weight", module + ".base_layer.weight"}) {
      if (!file_.contains(key)) continue;
      const RawTensor raw = take(key, shape);
      return same(raw, base.find(name)) ? std::nullopt : std::optional(raw);
    }
    return std::nullopt;
  }

  /// Throws Error(unsupported) for a tensor that nobody took; gives the file.
  [[nodiscard]] Safetensors finish() {
    std::sort(used_.begin(), used_.end());
    for (const auto name : file_.names()) {
      if (std::binary_search(used_.begin(), used_.end(), name)) continue;
      throw Error(Code::unsupported, where(name),
                  "LoRA pairs of the base's linear layers, embed_tokens, lm_head and norms",
                  "a tensor of another name");
    }
    return std::move(file_);
  }

 private:
  [[nodiscard]] static bool same(const RawTensor& a, const RawTensor* b) {
    return b != nullptr && a.dtype == b->dtype && a.size() == b->size() &&
           std::memcmp(a.data, b->data, static_cast<std::size_t>(a.size()) * bytes_of(a.dtype)) == 0;
  }
  [[nodiscard]] std::string where(std::string_view name) const { return file_.where() + ": " + printable(name); }

  [[nodiscard]] RawTensor take(const std::string& name, std::span<const index_t> shape) {
    const RawTensor raw = file_.tensor(name);
    if (!std::ranges::equal(raw.shape, shape)) {
      throw Error(Code::mismatch, where(name), shape_string(shape), shape_string(raw.shape));
    }
    used_.push_back(name);
    return raw;
  }

  Safetensors file_;
  const LoraConfig& lora_;
  std::vector<std::string> used_;
};

}  // namespace detail

/// The adapter in `folder`, for a base and its config. Throws Error that names file and key or tensor: not_found,
/// malformed, mismatch (a pair of other shapes: an adapter for another base), unsupported.
/// Source: PEFT, src/peft/tuners/lora/{config,layer}.py and utils/save_and_load.py.
[[nodiscard]] inline ExpertSource open_lora(const std::filesystem::path& folder, const Checkpoint& base,
                                            const Config& config) {
  if (config.is_routed()) {
    throw Error(Code::unsupported, config.where, "a plain model under adapters", "experts behind routers");
  }
  const JsonFile json = JsonFile::open(folder / "adapter_config.json", LoraConfig::limits);
  const LoraConfig lora(json.root());
  detail::LoraFile file(Safetensors::open(folder / "adapter_model.safetensors"), lora);
  std::vector<DeltaSource> deltas;
  for (const WeightEntry& entry : delta_table(config)) {
    DeltaSource delta;
    index_t first = 0;
    for (std::size_t i = 0; i < entry.parts.size();) {
      const std::string& name = entry.parts[i].name;
      index_t n = 0;  // of all parts that lie in one tensor
      for (; i < entry.parts.size() && entry.parts[i].name == name; ++i) n += entry.parts[i].n;
      if (auto pair = file.pair(name, n, entry.k)) {
        pair->first = first;
        delta.pairs.push_back(*pair);
      }
      first += n;
    }
    deltas.push_back(std::move(delta));
  }
  const std::array matrix{config.v, config.d};
  const std::array vector{config.d};
  auto embed_tokens = file.own(llama_names.embed_tokens, matrix, base);
  auto lm_head = file.own(llama_names.lm_head, matrix, base);
  if (config.tie_word_embeddings && embed_tokens && !lm_head) {
    throw Error(Code::unsupported, json.where() + ": modules_to_save",
                "lm_head besides embed_tokens, which the base ties", "embed_tokens alone");
  }
  ExpertSource expert{.deltas = std::move(deltas), .embed_tokens = embed_tokens, .lm_head = lm_head};
  for (const std::string& name : norm_names(config)) expert.norms.push_back(file.own(name, vector, base));
  expert.file = file.finish();
  return expert;
}

}  // namespace finteam::inline FINTEAM_ABI
