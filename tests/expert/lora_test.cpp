// LoRA adapters on a shared base: what PEFT computes with them (tools/make_lora_goldens.py), and what they must not
// change: the base alone, and each other, in one step.

#include "catch.hpp"
#include "expert/golden.hpp"
#include "random.hpp"
#include "refusals.hpp"
#include "team/shared_folder.hpp"
#include "tolerance.hpp"

#include <finteam/backend/cpu.hpp>
#include <finteam/backend/reference.hpp>
#include <finteam/backend/thread_pool.hpp>
#include <finteam/expert/decoder.hpp>
#include <finteam/expert/lora.hpp>

#include <array>
#include <cmath>
#include <vector>

using namespace finteam;

namespace {

const std::array<std::string, 4> adapters{"patterns", "rslora", "saved", "norms"};
using Route = std::vector<float>;

/// llama31 with the adapters of tests/goldens/lora, in one decoder.
template <Backend B>
struct Shared {
  explicit Shared(std::vector<std::string> names, Weights weights = Weights::stored, B backend = {},
                  const std::string& of = "llama31")
      : b(backend),
        base(of),
        config(base.config),
        experts(open(names)),
        options{.weights = weights},
        decoder(Decoder<B>::load(b, base.checkpoint, config, options, experts)),
        cache(b, {.layers = config.layers,
                  .kv_heads = config.g,
                  .head_dim = config.e,
                  .sequences = 8,
                  .tokens = 64,
                  .pages = 32}),
        scratch(b, config, 200, std::pmr::get_default_resource(), decoder.deltas()),
        golden(Safetensors::open(test::golden_folder("lora") / "golden.safetensors")) {
    for (const float id : floats("ids")) ids.push_back(static_cast<std::int32_t>(static_cast<index_t>(id) % config.v));
  }

  std::vector<ExpertSource> open(const std::vector<std::string>& names) const {
    std::vector<ExpertSource> all;
    for (const auto& name : names)
      all.push_back(open_lora(test::golden_folder("lora") / name, base.checkpoint, config));
    return all;
  }
  std::vector<float> floats(const std::string& name) const {
    const RawTensor raw = golden.tensor(name);
    std::vector<float> x;
    for (index_t i = 0; i < raw.size(); ++i) x.push_back(raw[i]);
    return x;
  }

  /// Logits of the golden's ids, read once under each route, all in one step. An empty route is the base alone.
  std::vector<std::vector<float>> logits(const std::vector<Route>& routes) {
    cache.clear();
    std::vector<Row> rows;
    std::vector<const float*> row_routes;
    for (const Route& route : routes) {
      const auto sequence = cache.open();
      cache.extend(sequence, static_cast<index_t>(ids.size()));
      for (std::size_t i = 0; i < ids.size(); ++i) {
        rows.push_back({ids[i], static_cast<std::int32_t>(i), sequence, route.empty() ? nullptr : route.data()});
        row_routes.push_back(rows.back().route);
      }
    }
    const auto t = static_cast<index_t>(rows.size());
    Tensor<float, 2> hidden({t, config.d}), out({t, config.v});
    REQUIRE(!decoder.forward(b, cache, rows, scratch, hidden.view()));
    decoder.logits(b, hidden.view(), scratch, out.view(), row_routes);
    std::vector<std::vector<float>> each;
    const auto n = static_cast<std::ptrdiff_t>(ids.size()) * config.v;
    for (std::size_t r = 0; r < routes.size(); ++r) {
      const float* first = out.data() + static_cast<std::ptrdiff_t>(r) * n;
      each.emplace_back(first, first + n);
    }
    return each;
  }

  B b;
  test::Golden base;
  Config config;
  std::vector<ExpertSource> experts;
  OpenOptions options;
  Decoder<B> decoder;
  KvCache<B> cache;
  StepScratch<B> scratch;
  Safetensors golden;
  std::vector<std::int32_t> ids;
};

void require_parity(const std::vector<float>& ours, const std::vector<float>& expected) {
  REQUIRE(ours.size() == expected.size());
  double worst = 0;
  for (std::size_t i = 0; i < ours.size(); ++i) {
    const double miss = std::abs(static_cast<double>(ours[i]) - static_cast<double>(expected[i]));
    REQUIRE(miss == miss);
    worst = std::max(worst, miss);
  }
  CHECK(worst <= tolerance::parity);
}

}  // namespace

TEMPLATE_TEST_CASE("logits with an adapter are PEFT's", "[parity]", Reference, Cpu) {
  Shared<TestType> shared({adapters.begin(), adapters.end()});
  const auto ours = shared.logits({{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}, {}});
  for (std::size_t k = 0; k < adapters.size(); ++k) {
    CAPTURE(adapters[k]);
    require_parity(ours[k], shared.floats(adapters[k] + ".logits"));
  }
  require_parity(ours[4], shared.floats("base.logits"));
}

TEMPLATE_TEST_CASE("deltas summed by weights are the model whose matrices have those sums", "[parity]", Reference,
                   Cpu) {
  Shared<TestType> shared({"patterns", "rslora"});
  require_parity(shared.logits({{0.25F, 0.75F}}).front(), shared.floats("inside.logits"));
}

TEST_CASE("an expert's bits do not depend on the experts beside it, nor on threads", "[law3]") {
  const Weights weights = GENERATE(Weights::stored, Weights::bf16, Weights::int8, Weights::int4);
  ThreadPool pool(3);
  Shared<Cpu> alone({"rslora"}, weights), norms({"norms"}, weights),
      four({adapters.begin(), adapters.end()}, weights, Cpu{ExecutorRef(pool)});
  const auto one = alone.logits({{1}}).front();
  CHECK(four.logits({{0, 1, 0, 0}}).front() == one);
  const auto all = four.logits({{1, 0, 0, 0}, {0, 1, 0, 0}, {}, {0, 0, 1, 0}, {0, 0, 0, 1}});
  CHECK(all[1] == one);
  CHECK(all[0] == four.logits({{1, 0, 0, 0}}).front());
  CHECK(all[2] == alone.logits({{}}).front());
  CHECK(all[3] == four.logits({{0, 0, 1, 0}}).front());
  CHECK(all[4] == norms.logits({{1}}).front());
}

TEST_CASE("no delta, and deltas of weight zero, are the base bit for bit", "[law1]") {
  const Weights weights = GENERATE(Weights::stored, Weights::bf16, Weights::int8, Weights::int4);
  Shared<Cpu> base({}, weights), shared({"patterns", "rslora"}, weights);
  const auto expected = base.logits({{}}).front();
  CHECK(shared.logits({{}}).front() == expected);
  CHECK(shared.logits({{0, 0}}).front() == expected);
  CHECK(shared.logits({{1, 0}, {}})[1] == expected);
}

TEST_CASE("an adapter of full rank is the fine-tuned model", "[law1]") {
  // B = W - W0 and A = 1 in every linear layer: the adapter says all that fine-tuning changed
  const auto name_of_golden = GENERATE(as<std::string>{}, "llama31", "phi3", "qwen2", "gemma3");
  CAPTURE(name_of_golden);
  const test::Golden golden(name_of_golden);
  test::TemporaryFolder folder;
  test::Floats tuned, adapter;
  test::Random random(17);
  for (const auto name : golden.checkpoint.names()) {
    const RawTensor raw = golden.checkpoint.tensor(name);
    std::vector<float> values, difference;
    for (index_t i = 0; i < raw.size(); ++i) {
      values.push_back(raw[i]);
      difference.push_back(0.1F * static_cast<float>(random.uniform(-1, 1)));
    }
    const bool linear = name.find("_proj.weight") != std::string_view::npos;
    for (std::size_t i = 0; linear && i < values.size(); ++i) values[i] += difference[i];
    tuned.add(std::string(name), {raw.shape.begin(), raw.shape.end()}, std::move(values));
    if (!linear) continue;
    const index_t k = raw.shape[1];
    std::vector<float> one(static_cast<std::size_t>(k * k), 0.0F);
    for (index_t i = 0; i < k; ++i) one[static_cast<std::size_t>(i * k + i)] = 1;
    const std::string module = "base_model.model." + std::string(name.substr(0, name.rfind(".weight")));
    adapter.add(module + ".lora_A.weight", {k, k}, std::move(one));
    adapter.add(module + ".lora_B.weight", {raw.shape[0], k}, std::move(difference));
  }
  tuned.write(folder.path() / "model.safetensors");
  adapter.write(folder.path() / "adapter_model.safetensors");
  const Config& c = golden.config;
  const Json inputs = {{"down_proj", c.f}, {"o_proj", c.h * c.e}};
  const Json config = {
      {"peft_type", "LORA"}, {"r", c.d}, {"lora_alpha", c.d}, {"rank_pattern", inputs}, {"alpha_pattern", inputs}};
  test::write(folder.path() / "adapter_config.json", config.dump());
  Cpu b;
  std::vector<ExpertSource> experts;
  experts.push_back(open_lora(folder.path(), golden.checkpoint, golden.config));
  Shared<Cpu> shared({}, Weights::stored, {}, name_of_golden);
  shared.decoder = Decoder<Cpu>::load(b, Checkpoint::open(folder.path()), golden.config);
  const auto expected = shared.logits({{}}).front();
  shared.decoder = Decoder<Cpu>::load(b, golden.checkpoint, golden.config, {}, experts);
  shared.scratch = StepScratch<Cpu>(b, golden.config, 160, std::pmr::get_default_resource(), shared.decoder.deltas());
  require_parity(shared.logits({{1}}).front(), expected);
  const auto plain = shared.logits({{}}).front();
  double effect = 0;
  for (std::size_t i = 0; i < plain.size(); ++i) {
    effect = std::max(effect, std::abs(static_cast<double>(plain[i]) - static_cast<double>(expected[i])));
  }
  CHECK(effect > 1);
}

namespace {

/// A copy of an adapter's folder, its config changed.
struct AdapterFolder {
  template <class Change>
  AdapterFolder(const std::string& name, Change&& change) {
    const auto from = test::golden_folder("lora") / name;
    std::filesystem::create_symlink(from / "adapter_model.safetensors", path() / "adapter_model.safetensors");
    Json json = parse_json(MappedFile::open(from / "adapter_config.json").text(), "adapter_config.json");
    change(json);
    test::write(path() / "adapter_config.json", json.dump());
  }
  [[nodiscard]] const std::filesystem::path& path() const { return folder.path(); }
  test::TemporaryFolder folder;
};

void require_refused_adapter(const std::filesystem::path& folder, const Config& config, Code code,
                             const std::string& words) {
  try {
    (void)open_lora(folder, test::Golden("llama31").checkpoint, config);
    FAIL("was not refused: " << words);
  } catch (const Error& e) {
    CAPTURE(e.what());
    CHECK(e.code() == code);
    CHECK(std::string(e.what()).find(words) != std::string::npos);
  }
}

}  // namespace

TEST_CASE("an adapter that is more than LoRA is refused by name", "[refused]") {
  const Config config = test::Golden("llama31").config;
  const auto refuse = [&](const std::string& key, const Json& value) {
    const AdapterFolder folder("rslora", [&](Json& json) { json[key] = value; });
    require_refused_adapter(folder.path(), config, Code::unsupported, key);
  };
  refuse("peft_type", "IA3");
  refuse("use_dora", true);
  refuse("lora_bias", true);
  refuse("bias", "all");
  refuse("fan_in_fan_out", true);
  refuse("init_lora_weights", "pissa");
  refuse("layer_replication", Json::parse("[[0, 1]]"));
  refuse("trainable_token_indices", Json::parse("[3]"));
  refuse("target_parameters", Json::parse("[\"x\"]"));
}

TEST_CASE("an adapter for another base, of other ranks or without its file is refused", "[refused]") {
  const Config config = test::Golden("llama31").config;
  Config narrow = config;
  narrow.d = 48;
  require_refused_adapter(test::golden_folder("lora") / "rslora", narrow, Code::mismatch,
                          "lora_A.weight: expected [9, 48]");
  Config shallow = config;
  shallow.layers = 1;
  require_refused_adapter(test::golden_folder("lora") / "rslora", shallow, Code::unsupported, "model.layers.1");
  const AdapterFolder other_rank("rslora", [](Json& json) { json["r"] = 8; });
  require_refused_adapter(other_rank.path(), config, Code::mismatch, "expected [8, 64], found [9, 64]");
  const AdapterFolder twice("patterns", [](Json& json) { json["rank_pattern"]["0.self_attn.q_proj"] = 3; });
  require_refused_adapter(twice.path(), config, Code::unsupported, "rank_pattern");
  const AdapterFolder many("rslora", [](Json& json) {
    for (int i = 0; i < 2049; ++i) json["rank_pattern"]["layers." + std::to_string(i)] = 1;
  });
  require_refused_adapter(many.path(), config, Code::limit_exceeded, "at most 2048 patterns");
  const AdapterFolder no_rank("rslora", [](Json& json) { json.erase("r"); });
  require_refused_adapter(no_rank.path(), config, Code::not_found, "r");
  require_refused_adapter(test::golden_folder("lora") / "norms", narrow, Code::mismatch,
                          "expected [2, 48], found [2, 64]");
  const AdapterFolder bare("rslora", [](Json&) {});
  std::filesystem::remove(bare.path() / "adapter_model.safetensors");
  require_refused_adapter(bare.path(), config, Code::not_found, "adapter_model.safetensors");
}

TEST_CASE("saved norms count only where they differ from the base's, and a linear layer saved whole is refused by name",
          "[refused]") {
  const test::Golden golden("llama31");
  test::TemporaryFolder folder;
  test::write(folder.path() / "adapter_config.json", R"({"peft_type": "LORA", "r": 1, "lora_alpha": 1})");
  const auto write = [&](const std::string& name, bool changed, index_t most = 1'000'000) {
    const RawTensor raw = golden.checkpoint.tensor(name);
    std::vector<float> values;
    for (index_t i = 0; i < std::min(raw.size(), most); ++i) values.push_back(raw[i] + (changed && i == 3 ? 0.5F : 0));
    std::vector<index_t> shape(raw.shape.begin(), raw.shape.end());
    if (raw.size() > most) shape = {most};
    test::Floats file;
    file.add("base_model.model." + name, shape, std::move(values));
    file.write(folder.path() / "adapter_model.safetensors");
  };
  const std::string norm = "model.layers.1.post_attention_layernorm.weight";
  write(norm, false);
  CHECK_FALSE(open_lora(folder.path(), golden.checkpoint, golden.config).has_own());
  write(norm, true);
  const ExpertSource expert = open_lora(folder.path(), golden.checkpoint, golden.config);
  REQUIRE(expert.norms.size() == 5);
  for (std::size_t i = 0; i < 5; ++i) CHECK(expert.norms[i].has_value() == (i == 3));
  CHECK((*expert.norms[3])[3] == golden.checkpoint.tensor(norm)[3] + 0.5F);
  write(norm, true, 63);
  require_refused_adapter(folder.path(), golden.config, Code::mismatch, norm + ": expected [64], found [63]");
  write("model.layers.0.self_attn.q_proj.weight", true);
  require_refused_adapter(folder.path(), golden.config, Code::unsupported,
                          "self_attn.q_proj.weight: expected LoRA pairs");
}

TEST_CASE("every adapter_*.json in tests/refused is refused", "[refused][law5]") {
  test::check_refused_files(
      "adapter",
      {
          {"alpha_huge", Code::malformed, "lora_alpha: expected a number from -1000000.0 to 1000000.0, found 1e+300"},
          {"alpha_missing", Code::not_found, "expected key \"lora_alpha\", found none"},
          {"alpha_text", Code::malformed, "lora_alpha: expected a number, found \"16\""},
          {"bias_all", Code::unsupported, "bias: expected \"none\", found \"all\""},
          {"bias_list", Code::malformed, "bias: expected a string, found an array of 0"},
          {"deep", Code::limit_exceeded, "expected JSON at most 16 levels deep, found more"},
          {"dora", Code::unsupported, "use_dora: expected false, found true"},
          {"dora_text", Code::unsupported, "use_dora: expected false, found \"no\""},
          {"kind_missing", Code::not_found, "expected key \"peft_type\", found none"},
          {"layers_repeated", Code::unsupported, "layer_replication: expected null, found an array of 1"},
          {"other_kind", Code::unsupported, "peft_type: expected \"LORA\", found \"IA3\""},
          {"pattern_alpha_null", Code::malformed, "alpha_pattern.q_proj: expected a number, found null"},
          {"pattern_hangs", Code::limit_exceeded,
           "?:[a-z0-9_.]+)+[0-9]: expected a text that the pattern matches within its limits"},
          {"pattern_lone_bracket", Code::malformed,
           "alpha_pattern.[q_proj: expected a whole pattern, found one that ends too early"},
          {"pattern_long", Code::limit_exceeded,
           "qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq...: expected a pattern of at most 4096 bytes"},
          {"pattern_open_group", Code::malformed, "rank_pattern.(q_proj: expected a pattern that PCRE2 accepts"},
          {"pattern_rank_text", Code::malformed,
           "rank_pattern.q_proj: expected an integer from 1 to 65536, found \"4\""},
          {"pattern_rank_zero", Code::malformed, "rank_pattern.q_proj: expected an integer from 1 to 65536, found 0"},
          {"patterns_differ", Code::unsupported,
           "rank_pattern.self_attn.q_proj: expected one pattern for model.layers.0.self_attn.q_proj"},
          {"patterns_list", Code::malformed, "rank_pattern: expected an object, found an array of 1"},
          {"rank_fraction", Code::malformed, "r: expected an integer from 1 to 65536, found 0.5"},
          {"rank_huge", Code::malformed, "r: expected an integer from 1 to 65536, found 9223372036854775808"},
          {"rank_missing", Code::not_found, "expected key \"r\", found none"},
          {"rank_negative", Code::malformed, "r: expected an integer from 1 to 65536, found -8"},
          {"rank_text", Code::malformed, "r: expected an integer from 1 to 65536, found \"8\""},
          {"rank_zero", Code::malformed, "r: expected an integer from 1 to 65536, found 0"},
          {"rslora_number", Code::malformed, "use_rslora: expected true or false, found 1"},
          {"start_changes_base", Code::unsupported,
           "init_lora_weights: expected true, false, gaussian, orthogonal or eva, found \"olora\""},
      },
      [](const auto& path) {
        const JsonFile file = JsonFile::open(path, LoraConfig::limits);
        (void)LoraConfig(file.root()).scale("model.layers.0.self_attn.q_proj");
      });
}

TEST_CASE("an adapter with more patterns than a model has modules is refused", "[refused][law5]") {
  const AdapterFolder folder("rslora", [](Json& json) {
    for (int i = 0; i < 10'000; ++i) json["rank_pattern"]["layers." + std::to_string(i) + ".q_proj"] = 4;
  });
  require_refused_adapter(folder.path(), test::Golden("llama31").config, Code::limit_exceeded,
                          "at most 10000 JSON values");
}
