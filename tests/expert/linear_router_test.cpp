// Linear layers with routers of their own (mergoo): law 1 in a linear layer, any linear layers in any blocks, and what
// is refused. What mergoo computes with them, and law 3: moe_test.cpp.

#include "catch.hpp"
#include "counting_memory.hpp"
#include "expert/merged_run.hpp"
#include "tolerance.hpp"

#include <finteam/backend/cpu.hpp>
#include <finteam/backend/reference.hpp>

#include <limits>
#include <vector>

using namespace merged_run;
using test::Merged;

namespace {

const std::vector<std::string> every_linear{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                            "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                            "mlp.down_proj"};
const std::vector<std::string> mlp_linears{"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"};

}  // namespace

TEST_CASE("a merge of linear layers that is read wrongly misses the goldens by more than 100 tolerances", "[parity]") {
  const auto miss = [](const std::string& name, auto change) {
    const test::Golden golden(name);
    Merged m;
    m.config = parse_json(MappedFile::open(golden.folder / "config.json").text(), "config.json");
    for (const auto tensor : golden.checkpoint.names()) {
      const RawTensor raw = golden.checkpoint.tensor(tensor);
      auto& t = m.tensors[std::string(tensor)];
      t.shape.assign(raw.shape.begin(), raw.shape.end());
      for (index_t i = 0; i < raw.size(); ++i) t.values.push_back(raw[i]);
    }
    change(m);
    const Folder folder(m);
    Run<Reference> run(folder.path());
    return distance(run.read_once(golden.ids("prompt_1.ids")).logits, golden.floats("prompt_1.logits"));
  };
  constexpr double far = 100 * tolerance::parity;
  const auto swap = [](const std::string& a, const std::string& b) {
    return [a, b](Merged& m) { std::swap(m.tensors.at("model.layers.0." + a), m.tensors.at("model.layers.0." + b)); };
  };
  CHECK(miss("mergoo3", [](Merged&) {}) <= tolerance::parity);
  CHECK(miss("mergoo3", [](Merged& m) { m.config["num_experts_per_tok"] = 1; }) > far);
  CHECK(miss("mergoo3", [](Merged& m) { m.config["num_experts_per_tok"] = 3; }) > far);
  CHECK(miss("mergoo3", swap("mlp.gate_proj.gate.weight", "mlp.up_proj.gate.weight")) > far);
  CHECK(miss("mergoo3", swap("mlp.down_proj.experts.0.weight", "mlp.down_proj.experts.2.weight")) > far);
  CHECK(miss("mergoo4", [](Merged& m) { m.config["num_experts_per_tok"] = 4; }) > far);
  CHECK(miss("mergoo4", swap("self_attn.q_proj.gate.weight", "self_attn.v_proj.gate.weight")) > far);
}

TEST_CASE("linear layers of equal experts are the plain model: one for a token bit for bit, several within tolerance",
          "[law1]") {
  const auto name = GENERATE(as<std::string>{}, "llama31", "mqa");
  const auto weights = GENERATE(values(every_format));
  CAPTURE(name, finteam::name(weights));
  const OpenOptions options{.weights = weights};
  Run<Cpu> plain(test::golden_folder(name), options);
  const Ids ids = some_ids(40, plain.config);
  const auto expected = plain.read_once(ids);
  const auto merged = [&](std::size_t n, int top_k, const std::vector<std::string>& linears,
                          const std::vector<index_t>& blocks) {
    const Folder folder(Merged::of_linears(copies(name, n), top_k, linears, blocks));
    return Run<Cpu>(folder.path(), options).read_once(ids);
  };
  for (const std::string& linear : every_linear) {
    CAPTURE(linear);
    CHECK(merged(2, 1, {linear}, {0}).logits == expected.logits);
  }
  CHECK(merged(3, 1, every_linear, {1, 0}).logits == expected.logits);
  CHECK(merged(2, 1, {}, {0}).routing.empty());
  CHECK(merged(2, 1, mlp_linears, {}).logits == expected.logits);
  if (is_quantised(format_of(weights, {})) || weights == Weights::bf16) return;  // rounded inputs may round apart
  CHECK(distance(merged(3, 2, mlp_linears, {0, 1}).logits, expected.logits) <= tolerance::parity);
  CHECK(distance(merged(4, 4, every_linear, {0, 1}).logits, expected.logits) <= tolerance::parity);
}

TEST_CASE("an expert of a linear layer that nobody chose is not read, and blocks without routers say nothing",
          "[law1]") {
  Merged m = Merged::of_linears(copies("llama31", 2), 1, every_linear, {1});
  m.make_second_unread();
  const Folder folder(m);
  Run<Cpu> run(folder.path()), plain(test::golden_folder("llama31"));
  const Ids ids = some_ids(20, plain.config);
  const auto step = run.read_once(ids);
  CHECK(step.logits == plain.read_once(ids).logits);
  const Floats first_row = step.row(step.routing, 0, ids.size());
  CHECK(std::vector<float>(first_row.begin(), first_row.begin() + 2) == Floats{0, 0});
  CHECK(distance({first_row.begin() + 2, first_row.end()}, {1, 0}) <= 1e-6);
}

TEST_CASE("experts of linear layers give the same bits packed or mapped, and choices reach them, never a router",
          "[expert]") {
  const auto weights = GENERATE(values(every_format));
  CAPTURE(name(weights));
  const Folder folder(
      Merged::of_linears({test::golden_team() / "macro", test::golden_team() / "micro", test::golden_team() / "quant"},
                         2, every_linear, {0, 1}));
  const OpenOptions options{.weights = weights};
  Run<Cpu> first(folder.path(), options);
  const Ids ids = some_ids(30, first.config);
  const auto expected = first.read_once(ids);
  const test::TemporaryFolder packed;
  OpenOptions mapped = options;
  mapped.packed = packed.path();
  CHECK(Run<Cpu>(folder.path(), mapped).read_once(ids) == expected);
  test::CountingMemory memory;
  mapped.memory = &memory;
  CHECK(Run<Cpu>(folder.path(), mapped).read_once(ids) == expected);
  CHECK(memory.most() < 8192);  // norms: no matrix was packed

  const OpenOptions chosen{.weights = weights, .choices = {{"up_proj", Weights::bf16}}};
  index_t routers = 0;
  for (const SourceWeight& w : find_weights(first.checkpoint, first.config, chosen)) {
    CAPTURE(w.name());
    if (w.is_vector()) continue;
    routers += w.entry.is_router ? 1 : 0;
    CHECK(w.entry.is_router == (w.name().find("gate.weight") != std::string::npos));
    CHECK(w.entry.expert.has_value() == (w.name().find("experts") != std::string::npos));
    const bool up = w.name().find("up_proj") != std::string::npos;
    const Weights expected_weights = w.entry.is_router ? Weights::stored : up ? Weights::bf16 : weights;
    CHECK(w.panels().format() == format_of(expected_weights, w.tensors));
  }
  CHECK(routers == 14);
}

TEST_CASE("a merge of linear layers that is fresh, incomplete, or behind adapters is refused by name",
          "[expert][law5][refused]") {
  const std::string at = "model.layers.1.mlp.up_proj.";
  const auto refuse = [](auto&& change, Code code, const std::string& words) {
    Merged m = Merged::of_linears(copies("mqa", 2), 1, mlp_linears, {0, 1});
    change(m);
    require_refused(Folder(m).path(), code, words);
  };
  const auto key = [&](const std::string& name, const Json& value, Code code, const std::string& words) {
    refuse([&](Merged& m) { m.config[name] = value; }, code, words);
  };
  refuse([&](Merged& m) { m.tensors.erase(at + "gate.weight"); }, Code::not_found,
         at + "gate.weight: expected the router");
  refuse([&](Merged& m) { std::erase_if(m.tensors, [](const auto& t) { return t.first.ends_with("gate.weight"); }); },
         Code::not_found, "a fresh merge, not yet trained");
  refuse([&](Merged& m) { m.tensors.erase(at + "experts.1.weight"); }, Code::not_found, at + "experts.1.weight");
  refuse([&](Merged& m) { m.tensors[at + "experts.2.weight"] = m.tensors[at + "experts.1.weight"]; }, Code::unsupported,
         at + "experts.2.weight");
  refuse([&](Merged& m) { m.tensors[at + "weight"] = m.tensors[at + "experts.1.weight"]; }, Code::unsupported,
         at + "weight");
  refuse([&](Merged& m) { m.tensors[at + "gate.bias"] = {{2}, {1, 2}}; }, Code::unsupported, at + "gate.bias");
  refuse(
      [&](Merged& m) {
        m.tensors[at + "gate.weight"].shape = {48, 2};
      },
      Code::mismatch, at + "gate.weight: expected [2, 48], found [48, 2]");
  refuse([&](Merged& m) { m.config.erase("router_layers"); }, Code::not_found, "key \"router_layers\"");
  key("router_layers_index", {0}, Code::not_found, "mlp.gate_proj.weight");
  key("router_layers_index", {0, 1, 2}, Code::malformed, "router_layers_index[2]");
  key("router_layers", {"gate_proj", "mlp"}, Code::unsupported, "router_layers[1]: expected q_proj");
  key("adapter_configs", Json::array(), Code::unsupported, "adapter_configs");
  key("num_experts", 0, Code::malformed, "num_experts");
  key("num_experts_per_tok", 3, Code::malformed, "num_experts_per_tok");
  key("model_type", "qwen2", Code::unsupported, "num_experts: expected no such key in a config of \"qwen2\"");
  key("model_type", "mistral", Code::unsupported, "num_experts: expected no such key in a config of \"mistral\"");
  key("model_type", "mixtral", Code::not_found, "num_local_experts");
  for (const std::string name : {"num_experts", "num_experts_per_tok", "router_layers_index"}) {
    refuse([&](Merged& m) { m.config.erase(name); }, Code::not_found, name);
  }
}
