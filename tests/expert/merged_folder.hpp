// Merged checkpoints for a test: one model's attention, the feed-forward layers of several as experts, in either
// layout, and routers that the test draws; or such experts and routers for any linear layers.
#pragma once

#include "random.hpp"
#include "team/shared_folder.hpp"

#include <finteam/file/checkpoint.hpp>
#include <finteam/file/json_view.hpp>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <vector>

namespace test {

/// A checkpoint's tensors, which a test may change before they are written.
struct Merged {
  struct Tensor {
    std::vector<finteam::index_t> shape;
    std::vector<float> values;
  };
  std::map<std::string, Tensor> tensors;
  finteam::Json config;

  Merged() = default;
  /// experts: plain checkpoints of one shape, the first of which gives everything else, too. Router weights are uniform
  /// in ±router.
  Merged(const std::vector<fs::path>& experts, int top_k, double router = 0.3)
      : config(finteam::parse_json(finteam::MappedFile::open(experts.front() / "config.json").text(), "config.json")) {
    const finteam::Config c = finteam::read_config(experts.front());
    config["model_type"] = "mixtral";
    config["num_local_experts"] = experts.size();
    config["num_experts_per_tok"] = top_k;
    config["num_key_value_heads"] = c.g;
    Random random(5);
    for (finteam::index_t l = 0; l < c.layers; ++l) {
      const auto n = static_cast<finteam::index_t>(experts.size());
      tensors[layer(l) + "block_sparse_moe.gate.weight"] = {
          {n, c.d}, random.floats(static_cast<std::size_t>(n * c.d), -router, router)};
    }
    for (std::size_t e = 0; e < experts.size(); ++e) {
      const auto from = finteam::Checkpoint::open(experts[e]);
      for (const auto name : from.names()) {
        std::string to(name);
        const auto at = to.find("mlp.");
        if (at == std::string::npos && e > 0) continue;
        if (at != std::string::npos) {
          const std::string w = to.find("gate_proj") != std::string::npos ? "w1"
                                : to.find("up_proj") != std::string::npos ? "w3"
                                                                          : "w2";
          to = to.substr(0, at) + "block_sparse_moe.experts." + std::to_string(e) + "." + w + ".weight";
        }
        tensors[to] = copy(from.tensor(name));
      }
    }
  }

  [[nodiscard]] static std::string layer(finteam::index_t l) { return "model.layers." + std::to_string(l) + "."; }

  /// Makes every router choose the first expert before the second, whose weights are no numbers.
  void make_second_unread() {
    for (auto& [name, t] : tensors) {
      if (name.ends_with("gate.weight")) {  // equal rows: the lower expert
        std::copy_n(t.values.begin(), t.values.size() / 2,
                    t.values.begin() + static_cast<std::ptrdiff_t>(t.values.size() / 2));
      }
      if (name.find("experts.1.") == std::string::npos) continue;
      for (float& x : t.values) x = std::numeric_limits<float>::quiet_NaN();
    }
  }

  /// The same in transformers 5's layout.
  void fuse() {
    const auto layers = config["num_hidden_layers"].get<finteam::index_t>();
    const auto n = config["num_local_experts"].get<finteam::index_t>();
    for (finteam::index_t l = 0; l < layers; ++l) {
      const std::string from = layer(l) + "block_sparse_moe.", to = layer(l) + "mlp.";
      tensors[to + "gate.weight"] = take(from + "gate.weight");
      Tensor both, down;
      for (finteam::index_t e = 0; e < n; ++e) {
        const std::string expert = from + "experts." + std::to_string(e) + ".";
        const Tensor gate = take(expert + "w1.weight"), up = take(expert + "w3.weight"),
                     w2 = take(expert + "w2.weight");
        for (const Tensor* t : {&gate, &up}) both.values.insert(both.values.end(), t->values.begin(), t->values.end());
        down.values.insert(down.values.end(), w2.values.begin(), w2.values.end());
        both.shape = {n, 2 * gate.shape[0], gate.shape[1]};
        down.shape = {n, w2.shape[0], w2.shape[1]};
      }
      tensors[to + "experts.gate_up_proj"] = both;
      tensors[to + "experts.down_proj"] = down;
    }
  }

  void write(const fs::path& folder) const {
    Floats file;
    for (const auto& [name, t] : tensors) file.add(name, t.shape, t.values);
    file.write(folder / "model.safetensors");
    test::write(folder / "config.json", config.dump());
  }

  /// The same checkpoints merged as mergoo does it: experts and a router for each of `linears` ("mlp.up_proj") in
  /// `blocks`.
  static Merged of_linears(const std::vector<fs::path>& experts, int top_k, const std::vector<std::string>& linears,
                           const std::vector<finteam::index_t>& blocks, double router = 0.3) {
    Merged m;
    m.config = finteam::parse_json(finteam::MappedFile::open(experts.front() / "config.json").text(), "config.json");
    m.config["num_experts"] = experts.size();
    m.config["num_experts_per_tok"] = top_k;
    m.config["router_layers"] = finteam::Json::array();
    for (const std::string& linear : linears) m.config["router_layers"].push_back(linear.substr(linear.find('.') + 1));
    m.config["router_layers_index"] = blocks;
    const auto n = static_cast<finteam::index_t>(experts.size());
    const auto first = finteam::Checkpoint::open(experts.front());
    for (const auto name : first.names()) m.tensors[std::string(name)] = copy(first.tensor(name));
    Random random(6);
    for (const finteam::index_t l : blocks) {
      for (const std::string& linear : linears) {
        const std::string at = layer(l) + linear + ".";
        const finteam::index_t k = m.take(at + "weight").shape[1];
        m.tensors[at + "gate.weight"] = {{n, k}, random.floats(static_cast<std::size_t>(n * k), -router, router)};
        for (std::size_t e = 0; e < experts.size(); ++e) {
          const auto from = finteam::Checkpoint::open(experts[e]);
          m.tensors[at + "experts." + std::to_string(e) + ".weight"] = copy(from.tensor(at + "weight"));
        }
      }
    }
    return m;
  }

 private:
  static Tensor copy(const finteam::RawTensor& raw) {
    Tensor t{{raw.shape.begin(), raw.shape.end()}, {}};
    for (finteam::index_t i = 0; i < raw.size(); ++i) t.values.push_back(raw[i]);
    return t;
  }
  Tensor take(const std::string& name) {
    Tensor t = std::move(tensors.at(name));
    tensors.erase(name);
    return t;
  }
};

}  // namespace test
