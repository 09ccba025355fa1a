// Merged checkpoints: what transformers and mergoo compute with them (tools/make_moe_goldens.py,
// make_mergoo_goldens.py), law 1 in the feed-forward layer, law 3 behind a router, both layouts of files, and what is
// refused. Routers of linear layers besides: linear_router_test.cpp.

#include "catch.hpp"
#include "counting_memory.hpp"
#include "expert/merged_run.hpp"
#include "tolerance.hpp"

#include <finteam/backend/cpu.hpp>
#include <finteam/backend/reference.hpp>
#include <finteam/backend/thread_pool.hpp>
#include <finteam/expert/decoder.hpp>
#include <finteam/expert/lora.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

using namespace merged_run;

TEMPLATE_TEST_CASE("logits, routing and greedy texts of merged checkpoints are those of transformers and mergoo",
                   "[parity]", Reference, Cpu) {
  const auto name = GENERATE(as<std::string>{}, "merged3", "merged4", "mergoo3", "mergoo4");
  CAPTURE(name);
  const test::Golden golden(name);
  Run<TestType> run(golden.folder);
  for (const std::string i : {"0", "1", "2"}) {
    CAPTURE(i);
    const Ids prompt = golden.ids("prompt_" + i + ".ids"), expected = golden.ids("greedy_" + i + ".ids");
    REQUIRE(expected.size() == 32);
    run.cache.clear();
    const auto sequence = run.cache.open();
    auto step = run.read(prompt, sequence);
    Floats kept;
    for (const std::int32_t t : golden.ids("prompt_" + i + ".positions")) {
      const Floats row = step.row(step.logits, static_cast<std::size_t>(t), prompt.size());
      kept.insert(kept.end(), row.begin(), row.end());
    }
    CHECK(distance(kept, golden.floats("prompt_" + i + ".logits")) <= tolerance::parity);
    CHECK(distance(step.row(step.hidden, prompt.size() - 1, prompt.size()), golden.floats("prompt_" + i + ".hidden")) <=
          tolerance::parity);
    const auto experts = static_cast<std::size_t>(run.config.experts);
    const auto layers = static_cast<std::size_t>(run.config.layers);
    CHECK(distance(step.routing, by_row(golden.floats("prompt_" + i + ".routing"), layers, experts)) <=
          tolerance::parity);
    Ids chosen;
    Floats scores = step.row(step.logits, prompt.size() - 1, prompt.size());
    while (true) {
      chosen.push_back(static_cast<std::int32_t>(std::max_element(scores.begin(), scores.end()) - scores.begin()));
      if (chosen.size() == expected.size()) break;
      scores = run.read({chosen.back()}, sequence).logits;
    }
    CHECK(chosen == expected);
    CHECK(distance(scores, golden.floats("greedy_" + i + ".logits")) <= tolerance::parity);
  }
}

TEST_CASE("a constant of a merged config that is read wrongly misses the goldens by more than 100 tolerances",
          "[parity]") {
  const auto miss = [](const std::string& name, auto change) {
    const test::Golden golden(name);
    test::TemporaryFolder folder;
    std::filesystem::create_symlink(golden.folder / "model.safetensors", folder.path() / "model.safetensors");
    Json json = parse_json(MappedFile::open(golden.folder / "config.json").text(), "config.json");
    change(json);
    test::write(folder.path() / "config.json", json.dump());
    Run<Reference> run(folder.path());
    return distance(run.read_once(golden.ids("prompt_1.ids")).logits, golden.floats("prompt_1.logits"));
  };
  constexpr double far = 100 * tolerance::parity;
  CHECK(miss("merged3", [](Json&) {}) <= tolerance::parity);
  CHECK(miss("merged3", [](Json& json) { json["num_experts_per_tok"] = 1; }) > far);
  CHECK(miss("merged3", [](Json& json) { json["num_experts_per_tok"] = 3; }) > far);
  CHECK(miss("merged4", [](Json& json) { json["num_experts_per_tok"] = 2; }) > far);
  CHECK(miss("merged3", [](Json& json) { json["rope_theta"] = 1e4; }) > far);  // Llama's default
}

TEST_CASE("a routed row has the same bits in any chunks, on any threads, beside any neighbours", "[law3]") {
  const auto name = GENERATE(as<std::string>{}, "merged3", "merged4", "mergoo3", "mergoo4");
  const auto weights = GENERATE(values(every_format));
  CAPTURE(name, finteam::name(weights));
  const auto folder = test::golden_folder(name);
  const OpenOptions options{.weights = weights};
  Run<Cpu> run(folder, options);
  const Ids ids = some_ids(67, run.config);
  const auto whole = run.read_once(ids);
  for (const std::size_t chunk : {1UL, 2UL, 5UL, 31UL, 32UL, 66UL}) {
    CAPTURE(chunk);
    CHECK(run.read_in_chunks(ids, chunk) == whole);
  }
  for (const index_t threads : {2, 3}) {
    ThreadPool pool(threads);
    Run<Cpu> other(folder, options, Cpu(pool));
    CHECK(other.read_once(ids) == whole);
    CHECK(other.read_in_chunks(ids, 1) == whole);
  }
  run.cache.clear();
  const auto before = run.cache.open(), own = run.cache.open(), after = run.cache.open();
  std::vector<Row> rows;
  const Ids others = test::Random(18).ids(40, run.config.v);
  for (std::int32_t i = 0; i < 33; ++i) rows.push_back({others[static_cast<std::size_t>(i)], i, before});
  for (std::int32_t i = 0; i < 67; ++i) rows.push_back({ids[static_cast<std::size_t>(i)], i, own});
  for (std::int32_t i = 0; i < 7; ++i) rows.push_back({others[static_cast<std::size_t>(33 + i)], i, after});
  const auto batch = run.step(rows);
  for (const std::size_t i : {0UL, 1UL, 40UL, 66UL}) {
    CAPTURE(i);
    CHECK(batch.row(batch.hidden, 33 + i, 107) == whole.row(whole.hidden, i, 67));
    CHECK(batch.row(batch.logits, 33 + i, 107) == whole.row(whole.logits, i, 67));
    CHECK(batch.row(batch.routing, 33 + i, 107) == whole.row(whole.routing, i, 67));
  }
}

TEST_CASE("equal experts are the plain model: one for a token bit for bit, several within tolerance", "[law1]") {
  const auto name = GENERATE(as<std::string>{}, "llama31", "mqa");
  const auto weights = GENERATE(values(every_format));
  const bool fused = GENERATE(false, true);
  CAPTURE(name, finteam::name(weights), fused);
  const OpenOptions options{.weights = weights};
  Run<Cpu> plain(test::golden_folder(name), options);
  const Ids ids = some_ids(40, plain.config);
  const auto expected = plain.read_once(ids);
  CHECK(expected.routing.empty());
  const auto merged = [&](std::size_t n, int top_k) {
    test::Merged m(copies(name, n), top_k);
    if (fused) m.fuse();
    const Folder folder(m);
    return Run<Cpu>(folder.path(), options).read_once(ids);
  };
  CHECK(merged(3, 1).logits == expected.logits);
  CHECK(merged(1, 1).logits == expected.logits);
  if (is_quantised(format_of(weights, {})) || weights == Weights::bf16) return;  // rounded inputs may round apart
  CHECK(distance(merged(3, 2).logits, expected.logits) <= tolerance::parity);
  CHECK(distance(merged(4, 4).logits, expected.logits) <= tolerance::parity);
}

TEST_CASE("the weights of an expert that nobody chose are not read", "[law1]") {
  test::Merged m(copies("llama31", 2), 1);
  m.make_second_unread();
  const Folder folder(m);
  Run<Cpu> run(folder.path()), plain(test::golden_folder("llama31"));
  const Ids ids = some_ids(20, plain.config);
  CHECK(run.read_once(ids).logits == plain.read_once(ids).logits);
}

TEST_CASE("both layouts of the same experts give the same bits, packed or mapped", "[expert]") {
  const auto weights = GENERATE(values(every_format));
  CAPTURE(name(weights));
  const auto all = std::vector<test::fs::path>{test::golden_team() / "macro", test::golden_team() / "micro",
                                               test::golden_team() / "quant"};
  test::Merged m(all, 2);
  const Folder separate(m);
  m.fuse();
  const Folder fused(m);
  const OpenOptions options{.weights = weights};
  Run<Cpu> first(separate.path(), options);
  const Ids ids = some_ids(30, first.config);
  const auto expected = first.read_once(ids);
  CHECK(Run<Cpu>(fused.path(), options).read_once(ids) == expected);
  for (const auto& path : {separate.path(), fused.path()}) {
    const test::TemporaryFolder packed;
    OpenOptions mapped = options;
    mapped.packed = packed.path();
    CHECK(Run<Cpu>(path, mapped).read_once(ids) == expected);
    test::CountingMemory memory;
    mapped.memory = &memory;
    CHECK(Run<Cpu>(path, mapped).read_once(ids) == expected);
    CHECK(std::distance(std::filesystem::directory_iterator(packed.path()), {}) == 1);
    CHECK(memory.most() < 8192);  // norms: no matrix was packed
  }
}

TEST_CASE("quantised experts stay near the stored ones, and their router stays as it is stored", "[expert]") {
  // The root mean square of what changes in the logits, relative to theirs, where the routers choose alike: an error in
  // a hidden state can choose another expert, which is another function. Random weights are the worst case.
  const auto name = GENERATE(as<std::string>{}, "merged3", "merged4");
  const auto relative = [&](Weights weights, std::size_t least) {
    const auto folder = test::golden_folder(name);
    Run<Cpu> stored(folder), other(folder, {.weights = weights});
    const Ids ids = some_ids(60, stored.config);
    const auto a = stored.read_once(ids), b = other.read_once(ids);
    double difference = 0, size = 0;
    std::size_t alike = 0;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const Floats ra = a.row(a.routing, i, 60), rb = b.row(b.routing, i, 60);
      if (!std::equal(ra.begin(), ra.end(), rb.begin(), [](float x, float y) { return (x == 0) == (y == 0); }))
        continue;
      ++alike;
      const Floats xa = a.row(a.logits, i, 60), xb = b.row(b.logits, i, 60);
      for (std::size_t j = 0; j < xa.size(); ++j) {
        difference += std::pow(static_cast<double>(xa[j] - xb[j]), 2);
        size += std::pow(static_cast<double>(xa[j]), 2);
      }
    }
    CHECK(alike >= least);
    return std::sqrt(difference / size);
  };
  CHECK(relative(Weights::bf16, 58) < 0.05);
  CHECK(relative(Weights::int8, 54) < 0.1);
  CHECK(relative(Weights::int4, 30) < 0.7);
}

TEST_CASE("choices reach experts by their tensors' names, never a router", "[expert]") {
  const test::Golden golden("merged3");
  for (const SourceWeight& w :
       find_weights(golden.checkpoint, golden.config, {.weights = Weights::int4, .choices = {{"w2", Weights::int8}}})) {
    CAPTURE(w.name());
    if (w.is_vector()) continue;
    const bool down = w.name().find("w2") != std::string::npos;
    CHECK(w.panels().format() == (w.entry.is_router ? Format::f32 : down ? Format::int8 : Format::int4));
    CHECK(w.entry.expert.has_value() == (w.name().find("experts") != std::string::npos));
  }
  const auto refuse = [&](const char* part) {
    try {
      (void)find_weights(golden.checkpoint, golden.config, {.choices = {{part, Weights::int8}}});
      FAIL("accepted " << part);
    } catch (const Error& e) {
      CHECK(e.code() == Code::invalid_argument);
    }
  };
  refuse("block_sparse_moe.gate");
  refuse("w3");
}

namespace {

template <class Change>
void refuse(bool fused, Change&& change, Code code, const std::string& words) {
  test::Merged m(copies("mqa", 2), 1);
  if (fused) m.fuse();
  change(m);
  require_refused(Folder(m).path(), code, words);
}

}  // namespace

TEST_CASE("a merged checkpoint whose tensors are missing, too many or misshapen is refused by name",
          "[expert][law5][refused]") {
  using test::Merged;
  const std::string separate = "model.layers.1.block_sparse_moe.", fused = "model.layers.1.mlp.";
  const auto without = [](const std::string& name) { return [name](Merged& m) { m.tensors.erase(name); }; };
  refuse(false, without(separate + "gate.weight"), Code::not_found, separate + "gate.weight");
  refuse(true, without(fused + "gate.weight"), Code::not_found, fused + "gate.weight");
  refuse(false, without(separate + "experts.1.w3.weight"), Code::not_found, separate + "experts.1.w3.weight");
  refuse(true, without(fused + "experts.down_proj"), Code::not_found, fused + "experts.down_proj");
  refuse(
      false,
      [&](Merged& m) {
        m.tensors[separate + "experts.2.w1.weight"] = {{1, 1}, {0}};
      },
      Code::unsupported, separate + "experts.2.w1.weight");
  refuse(
      false, [](Merged& m) { m.config["num_local_experts"] = 3; }, Code::mismatch, "expected [3, 48]");
  refuse(
      true,
      [&](Merged& m) {
        m.tensors[fused + "experts.gate_up_proj"].shape = {2, 48, 108};
      },
      Code::mismatch, "experts.gate_up_proj: expected [2, 108, 48], found [2, 48, 108]");
  refuse(
      true,
      [&](Merged& m) {
        m.tensors[fused + "experts.down_proj"].shape = {96, 54};
      },
      Code::mismatch, "experts.down_proj: expected [2, 48, 54]");
  refuse(
      false,
      [&](Merged& m) {
        m.tensors[separate + "experts.0.w2.weight"].shape = {54, 48};
      },
      Code::mismatch, "w2.weight: expected [48, 54]");
  refuse(
      false, [&](Merged& m) { m.tensors[fused + "gate.weight"] = m.tensors[separate + "gate.weight"]; }, Code::mismatch,
      "both layouts");
  refuse(
      false, [](Merged& m) { m.config["model_type"] = "llama"; }, Code::unsupported, "num_local_experts");
}

TEST_CASE("a merged config that changes the mathematics, or says too little, is refused by name",
          "[expert][law5][refused]") {
  using test::Merged;
  const auto key = [](const std::string& name, const Json& value, Code code = Code::unsupported) {
    refuse(
        false, [&](Merged& m) { m.config[name] = value; }, code, name);
  };
  key("sliding_window", 0, Code::malformed);
  key("norm_topk_prob", false);
  key("n_shared_experts", 1);
  key("scoring_func", "sigmoid");
  key("hidden_act", "gelu");
  refuse(
      false, [](Merged& m) { m.config["model_type"] = "qwen3_moe"; }, Code::not_found, "moe_intermediate_size");
  key("num_local_experts", 0, Code::malformed);
  key("num_experts_per_tok", 3, Code::malformed);
  key("num_experts_per_tok", 0, Code::malformed);
  for (const std::string name : {"num_local_experts", "num_experts_per_tok", "num_key_value_heads"}) {
    refuse(
        false, [&](Merged& m) { m.config.erase(name); }, Code::not_found, name);
  }
  refuse(
      false, [](Merged& m) { m.config["model_type"] = "mixtral "; }, Code::unsupported, "model_type");
  test::Merged m(copies("mqa", 2), 1);
  m.config["sliding_window"] = nullptr;
  m.config["router_jitter_noise"] = 0.1;  // of training
  m.config["output_router_logits"] = true;
  CHECK_NOTHROW(Run<Cpu>(Folder(m).path()));
}

TEST_CASE("adapters on a merged base are refused", "[expert][law5][refused]") {
  const test::Golden golden("merged3");
  try {
    (void)open_lora(test::golden_folder("lora") / "rslora", golden.checkpoint, golden.config);
    FAIL("was not refused");
  } catch (const Error& e) {
    CHECK(e.code() == Code::unsupported);
    CHECK(std::string(e.what()).find("merged3/config.json") != std::string::npos);
  }
}
