// A team on a shared base for a test: the golden team's macro role as the base, and adapters or low-bit differences
// that the test draws.
#pragma once

#include "random.hpp"
#include "team/folder.hpp"

#include <finteam/expert/expert_source.hpp>
#include <finteam/file/delta_writer.hpp>
#include <finteam/file/safetensors_writer.hpp>

#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace test {

/// Tensors of floats that a file is written of.
class Floats {
 public:
  void add(const std::string& name, std::vector<finteam::index_t> shape, std::vector<float> values) {
    auto& kept = values_[name] = {std::move(shape), std::move(values)};
    tensors_.push_back({name, finteam::DType::f32, kept.first, std::as_bytes(std::span(kept.second))});
  }
  void write(const fs::path& file) const { finteam::write_safetensors(file, tensors_); }

 private:
  std::map<std::string, std::pair<std::vector<finteam::index_t>, std::vector<float>>> values_;
  std::vector<finteam::TensorToWrite> tensors_;
};

/// A LoRA adapter of rank r for the base of that config: pairs of random A and B of that size, on every linear layer
/// of the blocks whose name `fits`.
inline void write_adapter(
    const fs::path& folder, const finteam::Config& config, int r, float size, std::uint64_t seed,
    const std::function<bool(const std::string&)>& fits = [](const auto&) { return true; }) {
  fs::create_directories(folder);
  write(folder / "adapter_config.json",
        R"({"peft_type": "LORA", "r": )" + std::to_string(r) + R"(, "lora_alpha": )" + std::to_string(r) + "}");
  Floats file;
  Random random(seed);
  for (const auto& entry : finteam::delta_table(config)) {
    for (const auto& part : entry.parts) {
      if (part.name == "lm_head.weight" || !fits(part.name)) continue;
      const std::string module = "base_model.model." + part.name.substr(0, part.name.rfind(".weight"));
      const auto n = static_cast<std::size_t>(part.n), k = static_cast<std::size_t>(entry.k),
                 rank = static_cast<std::size_t>(r);
      file.add(module + ".lora_A.weight", {r, entry.k}, random.floats(rank * k, -1, 1));
      file.add(module + ".lora_B.weight", {part.n, r}, random.floats(n * rank, -size, size));
    }
  }
  file.write(folder / "adapter_model.safetensors");
}

/// The low-bit difference to a base of what random changes up to `size` of its blocks' matrices and its norms make it.
inline void write_difference(const fs::path& folder, const finteam::Checkpoint& base, finteam::Format format,
                             float size, std::uint64_t seed) {
  const auto is_matrix = [](std::string_view name) { return name.find("_proj") != std::string_view::npos; };
  const TemporaryFolder tuned;
  Floats file;
  Random random(seed);
  for (const auto name : base.names()) {
    const finteam::RawTensor raw = base.tensor(name);
    const bool changes = is_matrix(name) || name.find("norm") != std::string_view::npos;
    std::vector<float> values;
    for (finteam::index_t i = 0; i < raw.size(); ++i) {
      values.push_back(raw[i] + (changes ? static_cast<float>(random.uniform(-size, size)) : 0.0F));
    }
    file.add(std::string(name), {raw.shape.begin(), raw.shape.end()}, std::move(values));
  }
  file.write(tuned.path() / "model.safetensors");
  const auto part = [&](std::string_view name) {
    return is_matrix(name) ? finteam::DeltaPart::low_bit : finteam::DeltaPart::whole;
  };
  finteam::write_delta(base, finteam::Checkpoint::open(tuned.path()), folder, {.format = format, .part = part});
}

/// The golden team's gate and tasks over a base and three adapters; the gate reads the base unless `change` says else.
class SharedFolder {
 public:
  template <class Change>
  explicit SharedFolder(Change&& change, float size = 0.1F, int r = 3) {
    fs::create_directory(path() / "base");
    for (const char* file : {"macro/config.json", "macro/model.safetensors", "tokenizer.json"}) {
      fs::create_symlink(golden_team() / file, path() / "base" / fs::path(file).filename());
    }
    for (const char* file : {"tokenizer.json", "gate.safetensors"}) {
      fs::create_symlink(golden_team() / file, path() / file);
    }
    const finteam::Config config = finteam::read_config(path() / "base");
    std::uint64_t seed = 1;
    for (const char* role : {"macro", "micro", "quant"}) write_adapter(path() / role, config, r, size, seed++);
    finteam::Json json =
        finteam::parse_json(finteam::MappedFile::open(golden_team() / "team.json").text(), "team.json");
    json["base"] = "base";
    json["gate"]["of"] = "base";
    change(json);
    write(path() / "team.json", json.dump());
  }
  SharedFolder() : SharedFolder([](finteam::Json&) {}) {}

  /// Puts a low-bit difference in the place of a role's adapter.
  void make_low_bit(const std::string& role, finteam::Format format, float size, std::uint64_t seed) const {
    fs::remove_all(path() / role);
    write_difference(path() / role, finteam::Checkpoint::open(path() / "base"), format, size, seed);
  }

  [[nodiscard]] const fs::path& path() const noexcept { return folder_.path(); }

 private:
  TemporaryFolder folder_;
};

}  // namespace test
