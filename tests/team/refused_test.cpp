// Bad input at the team's door and at a session's: each gets an Error that names where, what was expected, what was
// found.

#include "catch.hpp"
#include "refusals.hpp"
#include "team/answers.hpp"
#include "team/folder.hpp"

#include <finteam/file/safetensors_writer.hpp>
#include <finteam/team/session.hpp>

#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

using namespace finteam;
using test::check_refused;
using test::error_of;
using test::quiet;

namespace {

/// The Error of opening the golden team after a change to its team.json.
struct Refusal {
  const char* what;
  std::function<void(Json&)> change;
  Code code;
  const char* says;  ///< a part of what()
};

std::vector<Refusal> refusals() {
  return {
      {"no version", [](Json& t) { t.erase("finteam"); }, Code::not_found, "team.json: expected key \"finteam\""},
      {"a later version", [](Json& t) { t["finteam"] = 2; }, Code::malformed,
       "finteam: expected an integer from 1 to 1, found 2"},
      {"an unknown key", [](Json& t) { t["mixin"] = "logits"; }, Code::unsupported, "mixin"},
      {"an unknown key of a gate", [](Json& t) { t["gate"]["temprature"] = 2; }, Code::unsupported, "gate.temprature"},
      {"an unknown key of a task", [](Json& t) { t["tasks"]["sentiment"]["priors"] = {1}; }, Code::unsupported,
       "priors"},
      {"roles that are no list", [](Json& t) { t["roles"] = 3; }, Code::malformed, "roles: expected an array"},
      {"no roles", [](Json& t) { t["roles"] = Json::array(); }, Code::malformed, "roles: expected 1 to 64 roles"},
      {"a role without a path", [](Json& t) { t["roles"][1].erase("path"); }, Code::not_found, "roles[1]"},
      {"two roles of one name", [](Json& t) { t["roles"][2]["name"] = "macro"; }, Code::malformed, "roles[2].name"},
      {"a role without a name", [](Json& t) { t["roles"][0]["name"] = ""; }, Code::malformed, "roles[0].name"},
      {"a role that climbs out", [](Json& t) { t["roles"][0]["path"] = "../macro"; }, Code::malformed,
       "inside the team's folder"},
      {"a role at an absolute path", [](Json& t) { t["roles"][0]["path"] = "/etc"; }, Code::malformed, "roles[0].path"},
      {"a role that is not there", [](Json& t) { t["roles"][0]["path"] = "nowhere"; }, Code::not_found,
       "nowhere/config.json"},
      {"a base, and roles that are no adapters on it", [](Json& t) { t["base"] = "macro"; }, Code::not_found,
       "adapter_config.json"},
      {"three roles and no gate", [](Json& t) { t.erase("gate"); }, Code::mismatch, "expected a gate, for 3 roles"},
      {"a gate without a file", [](Json& t) { t["gate"].erase("file"); }, Code::not_found, "gate"},
      {"a gate's file that is not there", [](Json& t) { t["gate"]["file"] = "gone.safetensors"; }, Code::not_found,
       "gone.safetensors"},
      {"a gate's file that climbs out", [](Json& t) { t["gate"]["file"] = "a/../../g"; }, Code::malformed, "gate.file"},
      {"a gate that reads something else", [](Json& t) { t["gate"]["reads"] = "tea leaves"; }, Code::unsupported,
       "gate.reads"},
      {"a gate of an unknown role", [](Json& t) { t["gate"]["of"] = "nano"; }, Code::not_found,
       "gate.of: expected the name of a role, found \"nano\""},
      {"a gate per paragraph", [](Json& t) { t["gate"]["per"] = "paragraph"; }, Code::unsupported, "gate.per"},
      {"a gate that keeps no role", [](Json& t) { t["gate"]["top_k"] = 0; }, Code::malformed, "gate.top_k"},
      {"a gate that keeps more roles than there are", [](Json& t) { t["gate"]["top_k"] = 4; }, Code::malformed,
       "from 1 to 3, found 4"},
      {"a gate's temperature of zero", [](Json& t) { t["gate"]["temperature"] = 0; }, Code::malformed,
       "gate.temperature"},
      {"a gate's temperature that is text", [](Json& t) { t["gate"]["temperature"] = "warm"; }, Code::malformed,
       "found \"warm\""},
      {"an unknown mix", [](Json& t) { t["mix_in"] = "ranks"; }, Code::unsupported,
       "mix_in: expected one of probabilities, logits"},
      {"an unknown chat format", [](Json& t) { t["chat"] = "klingon"; }, Code::unsupported, "klingon"},
      {"a tokenizer that is not there", [](Json& t) { t["tokenizer"] = "none.json"; }, Code::not_found, "none.json"},
      {"a task without labels", [](Json& t) { t["tasks"]["sentiment"].erase("labels"); }, Code::not_found, "sentiment"},
      {"an empty label list", [](Json& t) { t["tasks"]["sentiment"]["labels"] = Json::array(); },
       Code::invalid_argument, "at least one label"},
      {"more labels than a session can be made for",
       [](Json& t) {
         for (int i = 0; i < 4094; ++i) t["tasks"]["sentiment"]["labels"].push_back("label " + std::to_string(i));
       },
       Code::invalid_argument, "at most 4096 labels, found 4097"},
      {"an empty label", [](Json& t) { t["tasks"]["sentiment"]["labels"][1] = ""; }, Code::invalid_argument,
       "an empty label"},
      {"a label twice", [](Json& t) { t["tasks"]["sentiment"]["labels"][1] = "bearish"; }, Code::invalid_argument,
       "\"bearish\" twice"},
      {"a task without a slot", [](Json& t) { t["tasks"]["sentiment"]["input"] = "Text:"; }, Code::invalid_argument,
       "{text}"},
      {"a prior of another length",
       [](Json& t) {
         t["tasks"]["sentiment"]["prior"] = {0.5, 0.5};
       },
       Code::invalid_argument, "a prior of 3 numbers"},
      {"a prior of zero",
       [](Json& t) {
         t["tasks"]["sentiment"]["prior"] = {0.5, 0.0, 0.5};
       },
       Code::invalid_argument, "above 0"},
  };
}

/// Writes a gate.safetensors of floats.
void write_gate(const std::filesystem::path& folder, index_t d, bool with_bias, float value = 0.5F) {
  const std::vector<float> weight(static_cast<std::size_t>(3 * d), value), bias(3, 0.25F);
  std::vector<TensorToWrite> tensors{{"weight", DType::f32, {3, d}, std::as_bytes(std::span(weight))}};
  if (with_bias) tensors.push_back({"bias", DType::f32, {3}, std::as_bytes(std::span(bias))});
  test::fs::remove(folder / "gate.safetensors");
  write_safetensors(folder / "gate.safetensors", tensors);
}

Json json_of(const std::filesystem::path& file) { return parse_json(MappedFile::open(file).text(), file.string()); }

}  // namespace

TEST_CASE("a team.json that makes no sense is refused, and the error names the key", "[law5]") {
  for (const Refusal& r : refusals()) {
    DYNAMIC_SECTION(r.what) {
      const test::TeamFolder folder(r.change);
      check_refused([&] { (void)open_team(folder.path()); }, r.code, r.says);
    }
  }
}

TEST_CASE("every team_*.json in tests/refused is refused", "[law5][refused]") {
  test::check_refused_files(
      "team",
      {
          {"abstain_labels_zero", Code::malformed,
           "tasks.tone.abstain.most_labels: expected an integer from 1 to 1000000, found 0"},
          {"abstain_unknown_key", Code::unsupported,
           "tasks.tone.abstain.labels: expected no such key: this build does not know it, found 1"},
          {"abstain_without_calibration", Code::mismatch,
           "labels: expected nothing: the task names no calibration, whose coverage it needs"},
          {"base_climbs", Code::malformed, "base: expected a path inside the team's folder, found \"..\""},
          {"calibration_climbs", Code::malformed,
           "tasks.tone.calibration: expected a path inside the team's folder, found \"../tone.json\""},
          {"chat_date_missing", Code::mismatch, "chat: expected a date, for {date}, found an object of 2 keys"},
          {"chat_date_unused", Code::mismatch,
           "chat: date: expected null: the format writes no {date}, found \"1 Jan 2026\""},
          {"chat_like_number", Code::malformed, "chat.like: expected a string, found 3"},
          {"chat_like_other", Code::unsupported, "chat.like: expected a chat format (none, chatml, "},
          {"chat_list", Code::malformed, "chat: expected the name of a chat format, or a format, found an array of 1"},
          {"chat_other", Code::unsupported, "or one declared, found \"llama-9\""},
          {"chat_strip_other", Code::unsupported,
           "chat: user.strip: expected one of none, ends, end, newlines, together, found \"left\""},
          {"chat_system_in_other", Code::unsupported,
           "chat: system.in: expected one of turn, first_user, last_user, found \"second_user\""},
          {"chat_token_empty", Code::malformed, "chat: tokens[0]: expected a string that is not empty, found \"\""},
          {"chat_tokens_many", Code::limit_exceeded, "chat: tokens: expected at most 64 strings, found an array of 65"},
          {"chat_turn_text", Code::malformed, "chat: user: expected an object, found \"<|eot_id|>\""},
          {"chat_turn_unknown_key", Code::unsupported, "chat: user.trim: expected no such key"},
          {"chat_unknown_key", Code::unsupported, "chat: stop: expected no such key"},
          {"chat_user_missing", Code::not_found, "chat: expected key \"user\", found none"},
          {"chat_number", Code::malformed, "chat: expected the name of a chat format, or a format, found 3"},
          {"deep", Code::limit_exceeded, "expected JSON at most 16 levels deep, found more"},
          {"gate_file_climbs", Code::malformed,
           "gate.file: expected a path inside the team's folder, found \"../gate.safetensors\""},
          {"gate_file_missing", Code::not_found, "gate: expected key \"file\", found none"},
          {"gate_floor_large", Code::malformed, "gate.floor: expected a number from 0.0 to 0.5, found 0.6"},
          {"gate_layer_negative", Code::malformed, "gate.layer: expected an integer from 0 to 1000, found -1"},
          {"gate_list", Code::malformed, "gate: expected an object, found an array of 0"},
          {"gate_missing", Code::mismatch, "expected a gate, for 2 roles, found none"},
          {"gate_of_base", Code::not_found, "gate.of: expected the name of a role, found \"base\""},
          {"gate_of_unknown", Code::not_found, "gate.of: expected the name of a role, found \"nano\""},
          {"gate_per_other", Code::unsupported, "gate.per: expected one of prompt, token, found \"paragraph\""},
          {"gate_prior_negative", Code::malformed, "gate.prior[1]: expected a number above 0, found -1"},
          {"gate_prior_short", Code::mismatch,
           "gate.prior: expected 2 numbers, one for each role, found an array of 1"},
          {"gate_rate_negative", Code::malformed, "gate.rate: expected a number from 0.0 to 1000000.0, found -1"},
          {"gate_reads_missing", Code::not_found, "gate: expected key \"reads\", found none"},
          {"gate_reads_other", Code::unsupported,
           "idden, prompt_last_hidden, prompt_mean_embedding, prompt_likelihood, performance"},
          {"gate_renormalise_off", Code::mismatch,
           "gate.renormalise: expected true, where probabilities are mixed, found false"},
          {"gate_renormalise_text", Code::malformed, "gate.renormalise: expected true or false, found \"no\""},
          {"gate_switch_one", Code::malformed, "gate.switch_probability: expected a number from 0.0 to 0.999, found 1"},
          {"gate_temperature_zero", Code::malformed,
           "gate.temperature: expected a number from 1e-06 to 1000000.0, found 0"},
          {"gate_top_k_large", Code::malformed, "gate.top_k: expected an integer from 1 to 2, found 3"},
          {"gate_top_k_zero", Code::malformed, "gate.top_k: expected an integer from 1 to 2, found 0"},
          {"gate_unknown_key", Code::unsupported,
           "gate.prior: expected nothing: this gate has no use for it, found an array of 2"},
          {"label_empty", Code::invalid_argument, "tasks.tone: expected labels with text, found an empty label"},
          {"label_number", Code::malformed, "tasks.tone.labels[1]: expected a string, found 1"},
          {"label_twice", Code::invalid_argument, "tasks.tone: expected labels that differ, found \"a\" twice"},
          {"labels_empty", Code::invalid_argument, "tasks.tone: expected at least one label, found an empty list"},
          {"labels_missing", Code::not_found, "tasks.tone: expected key \"labels\", found none"},
          {"merged_with_gate", Code::mismatch,
           "gate: expected null: a merged team's routers are the gate, found an object of 6 keys"},
          {"mix_deltas_without_base", Code::mismatch, "mix_in: expected deltas only with a base, found \"deltas\""},
          {"mix_other", Code::unsupported, "mix_in: expected one of probabilities, logits, deltas, found \"ranks\""},
          {"path_absolute", Code::malformed, "roles[0].path: expected a path inside the team's folder, found \"/etc\""},
          {"path_backslash", Code::malformed,
           "roles[0].path: expected a path inside the team's folder, found \"..\\macro\""},
          {"path_climbs", Code::malformed,
           "roles[0].path: expected a path inside the team's folder, found \"a/../../b\""},
          {"path_empty", Code::malformed, "roles[0].path: expected a path inside the team's folder, found \"\""},
          {"path_number", Code::malformed, "roles[0].path: expected a string, found 7"},
          {"path_zero_byte", Code::malformed,
           "roles[0].path: expected a path inside the team's folder, found \"macro\\x00\""},
          {"prior_short", Code::invalid_argument, "tasks.tone: expected a prior of 2 numbers, found 1"},
          {"prior_text", Code::malformed, "tasks.tone.prior[0]: expected a number, found \"1\""},
          {"prior_zero", Code::invalid_argument,
           "tasks.tone: expected a prior of finite numbers above 0, found 0.000000"},
          {"role_name_number", Code::malformed, "roles[1].name: expected a string, found 1"},
          {"role_name_twice", Code::malformed,
           "roles[1].name: expected a name that no other role has, found \"macro\""},
          {"role_text", Code::malformed, "roles[0]: expected an object, found \"macro\""},
          {"role_unknown_key", Code::unsupported,
           "roles[0].weight: expected no such key: this build does not know it, found 1"},
          {"roles_empty", Code::malformed, "roles: expected 1 to 64 roles, found an array of 0"},
          {"roles_many", Code::malformed, "roles: expected 1 to 64 roles, found an array of 65"},
          {"roles_missing", Code::not_found, "expected key \"roles\", found none"},
          {"roles_object", Code::malformed, "roles: expected an array, found an object of 1 keys"},
          {"task_slot_missing", Code::invalid_argument,
           "tasks.tone: expected an input that holds {text}, found \"Text:\""},
          {"task_unknown_key", Code::unsupported,
           "tasks.tone.priors: expected no such key: this build does not know it, found an array of 2"},
          {"tasks_list", Code::malformed, "tasks: expected an object, found an array of 1"},
          {"tokenizer_climbs", Code::malformed,
           "tokenizer: expected a path inside the team's folder, found \"../tokenizer.json\""},
          {"unknown_key", Code::unsupported,
           "experts: expected no such key: this build does not know it, found an array of 0"},
          {"version_missing", Code::not_found, "expected key \"finteam\", found none"},
          {"version_text", Code::malformed, "finteam: expected an integer from 1 to 1, found \"1\""},
      },
      [](const auto& path) {
        const JsonFile file = JsonFile::open(path, Manifest::limits);
        (void)read_manifest(file.root());
      });
}

TEST_CASE("a folder without a team or a checkpoint is refused", "[law5]") {
  const test::TemporaryFolder empty;
  check_refused([&] { (void)open_team(empty.path()); }, Code::not_found, "config.json");
  check_refused([&] { (void)open_team(empty.path() / "missing"); }, Code::not_found, "missing");
}

TEST_CASE("roles that disagree on the vocabulary are refused by name", "[law5]") {
  const test::TeamFolder folder;
  folder.unlink_role("quant");
  Json config = json_of(test::golden_team() / "quant" / "config.json");
  config["vocab_size"] = config["vocab_size"].get<int>() + 1;
  test::write(folder.path() / "quant" / "config.json", config.dump());
  check_refused([&] { (void)open_team(folder.path()); }, Code::mismatch,
                "role quant: expected a vocabulary of 601 tokens");
}

TEST_CASE("a config that contradicts its tensors is refused, and the error names tensor and shapes", "[law5]") {
  struct Change {
    const char* key;
    int value;
    const char* says;
  };
  const auto change = GENERATE(
      values<Change>({{"intermediate_size", 80,
                       "quant/model.safetensors: model.layers.0.mlp.gate_proj.weight: expected [80, 32], found ["},
                      {"hidden_size", 64, "model.embed_tokens.weight: expected [601, 64], found [601, 32]"},
                      {"num_hidden_layers", 3, "model.layers.2.input_layernorm.weight"},
                      {"num_hidden_layers", 1, "model.layers.1."}}));
  CAPTURE(change.key, change.value);
  const test::TeamFolder folder;
  folder.unlink_role("quant");
  Json config = json_of(test::golden_team() / "quant" / "config.json");
  config[change.key] = change.value;
  if (config.contains("head_dim") && std::string(change.key) == "hidden_size") config["head_dim"] = 8;
  test::write(folder.path() / "quant" / "config.json", config.dump());
  const Error e = error_of([&] { (void)open_team(folder.path()); });
  CAPTURE(e.what());
  CHECK(std::string(e.what()).find(change.says) != std::string::npos);
}

TEST_CASE("a role with a tokenizer of its own that differs is refused", "[law5]") {
  const test::TeamFolder folder;
  folder.unlink_role("quant");
  Json tokenizer = json_of(test::golden_team() / "tokenizer.json");
  const auto own = folder.path() / "quant" / "tokenizer.json";
  test::write(own, tokenizer.dump(2));  // other bytes, the same tokens
  CHECK_NOTHROW(open_team(folder.path()));
  for (auto& token : tokenizer["added_tokens"]) {
    if (token["content"] == "<|eot_id|>") token["content"] = "<|over|>";
  }
  auto& vocabulary = tokenizer["model"]["vocab"];
  if (vocabulary.contains("<|eot_id|>")) {
    vocabulary["<|over|>"] = vocabulary["<|eot_id|>"];
    vocabulary.erase("<|eot_id|>");
  }
  test::write(own, tokenizer.dump());
  check_refused([&] { (void)open_team(folder.path()); }, Code::mismatch,
                "quant/tokenizer.json: expected the tokens of");
}

TEST_CASE("a second copy of tied embeddings that differs is refused", "[law5]") {
  const test::TeamFolder folder;
  folder.unlink_role("quant");
  const Checkpoint original = Checkpoint::open(test::golden_team() / "quant");
  std::vector<TensorToWrite> tensors;
  for (const std::string_view name : original.names()) {
    const RawTensor raw = original.tensor(name);
    const std::span<const std::byte> bytes{raw.data, static_cast<std::size_t>(raw.size()) * bytes_of(raw.dtype)};
    tensors.push_back({std::string(name), raw.dtype, {raw.shape.begin(), raw.shape.end()}, bytes});
    if (name != "model.embed_tokens.weight") continue;
    tensors.push_back(tensors.back());
    tensors.back().name = "lm_head.weight";
  }
  test::fs::remove(folder.path() / "quant" / "model.safetensors");
  write_safetensors(folder.path() / "quant" / "model.safetensors", tensors);
  CHECK_NOTHROW(open_team(folder.path()));

  const std::vector<float> other(601 * 32, 0.5F);
  for (auto& t : tensors) {
    if (t.name == "lm_head.weight") t.data = std::as_bytes(std::span(other));
  }
  write_safetensors(folder.path() / "quant" / "model.safetensors", tensors);
  check_refused([&] { (void)open_team(folder.path()); }, Code::mismatch, "lm_head.weight: expected the bytes of");
}

TEST_CASE("a gate of the wrong width is refused, with both shapes", "[law5]") {
  const test::TeamFolder folder;
  write_gate(folder.path(), 31, true);
  check_refused([&] { (void)open_team(folder.path()); }, Code::mismatch, "weight: expected [3, 32], found [3, 31]");
}

TEST_CASE("a gate without its bias is refused", "[law5]") {
  const test::TeamFolder folder;
  write_gate(folder.path(), 32, false);
  check_refused([&] { (void)open_team(folder.path()); }, Code::not_found, "bias");
}

TEST_CASE("a session refuses what it was not made for, names it, and can be used again", "[law4][law5]") {
  const auto team = open_team(test::golden_team());
  Session desk(team, {.tokens = 128, .labels = 3, .rows = 16, .text_bytes = 2000});
  const View before = desk.classify("sentiment", "Rates rose");
  const std::string long_text(600, 'x'), huge(5000, 'x'), bad = "caf\xC3";
  std::string words;
  for (int i = 0; i < 150; ++i) words += "q z ";
  const Task task{.instruction = "?", .input = "{text}", .labels = {"a", "b"}};

  check_refused([&] { desk.classify("sentiment", ""); }, Code::invalid_argument,
                "text: expected some text, found an empty text");
  check_refused([&] { desk.classify("sentiment", " \n"); }, Code::invalid_argument, "white space only");
  check_refused([&] { desk.classify("nothing", "Rates rose"); }, Code::not_found, "\"nothing\"");
  check_refused([&] { desk.classify("sentiment", bad); }, Code::malformed, "UTF-8");
  check_refused([&] { desk.classify("sentiment", words); }, Code::limit_exceeded,
                "prompt: expected at most 128 tokens");
  check_refused([&] { desk.classify("sentiment", huge); }, Code::limit_exceeded, "2000");
  check_refused([&] { desk.generate(words, quiet); }, Code::limit_exceeded, "prompt");
  check_refused([&] { desk.generate("", quiet); }, Code::invalid_argument, "an empty text");
  check_refused([&] { desk.generate(std::span<const Message>{}, quiet); }, Code::invalid_argument,
                "at least one message");
  check_refused([&] { desk.generate("Hi", quiet, {.max_tokens = 0}); }, Code::invalid_argument, "max_tokens");
  check_refused([&] { desk.generate("Hi", quiet, {.sampling = {.temperature = -1}}); }, Code::invalid_argument,
                "temperature");
  check_refused([&] { desk.generate("Hi", quiet, {.sampling = {.temperature = 1, .top_p = 0}}); },
                Code::invalid_argument, "top_p");
  check_refused([&] { desk.generate("Hi", quiet, {.stop = {""}}); }, Code::invalid_argument, "stop strings");
  check_refused([&] { desk.score(words); }, Code::limit_exceeded, "prompt: expected at most 128 tokens");
  check_refused([&] { desk.score(bad); }, Code::malformed, "UTF-8");

  Task t = task;
  t.labels.clear();
  check_refused([&] { desk.classify(t, "x"); }, Code::invalid_argument, "at least one label, found an empty list");
  t.labels = {"a", "b", "c", "d"};
  check_refused([&] { desk.classify(t, "x"); }, Code::limit_exceeded, "at most 3 labels");
  t.labels = {"a", "the quick brown fox jumps over the lazy dog and runs"};
  check_refused([&] { desk.classify(t, "x"); }, Code::limit_exceeded, "labels of at most 16 tokens together");
  t.labels = {"a", std::string(129, 'x')};
  check_refused([&] { desk.classify(t, "x"); }, Code::limit_exceeded, "labels of at most 128 bytes");
  t.labels = {"\xFF"};
  check_refused([&] { desk.classify(t, "x"); }, Code::malformed, "UTF-8");
  t = task;
  t.input = "no slot";
  check_refused([&] { desk.classify(t, "x"); }, Code::invalid_argument, "{text}");

  CHECK(desk.classify("sentiment", "Rates rose").probabilities == before.probabilities);
}

TEST_CASE("weights that are not numbers never become an answer", "[law4][law5]") {
  const test::TeamFolder folder([](Json& team) { team["gate"]["top_k"] = 3; });
  folder.unlink_role("quant");
  const auto file = MappedFile::open(test::golden_team() / "quant" / "model.safetensors");
  std::string bytes(file.text());
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(bytes.data() + bytes.size() - 4, &nan, 4);  // the last element of the last tensor
  test::write(folder.path() / "quant" / "model.safetensors", bytes);
  const auto team = open_team(folder.path());
  Session desk(team);
  check_refused([&] { desk.classify("sentiment", "Rates rose"); }, Code::malformed,
                "role quant: expected finite scores");
  check_refused([&] { desk.score("Rates rose"); }, Code::malformed, "expected finite scores");
  check_refused([&] { desk.generate("Rates rose", quiet); }, Code::malformed, "expected finite scores");
}

TEST_CASE("a gate that holds no number is refused", "[law5]") {
  const test::TeamFolder folder;
  write_gate(folder.path(), 32, true, std::numeric_limits<float>::infinity());
  check_refused([&] { (void)open_team(folder.path()); }, Code::malformed, "expected finite numbers, found inf");
}

TEST_CASE("a session's limits are checked when it is made", "[law4]") {
  const auto team = open_team(test::golden_team());
  check_refused([&] { Session desk(team, {.tokens = 1}); }, Code::invalid_argument, "session limits: tokens");
  check_refused([&] { Session desk(team, {.tokens = 1'000'000}); }, Code::invalid_argument, "the team's context");
  check_refused([&] { Session desk(team, {.labels = -1}); }, Code::invalid_argument, "session limits: labels");
  check_refused([&] { Session desk(team, {.rows = 0}); }, Code::invalid_argument, "session limits: rows");
  check_refused([&] { Session desk(team, {.text_bytes = -5}); }, Code::invalid_argument, "session limits: text_bytes");
}

TEST_CASE("a merged team's task cannot abstain by a disagreement that its roles never have", "[team][refused]") {
  const JsonFile json(R"({"finteam": 1, "merged": "m", "roles": [{"name": "a"}, {"name": "b"}],
                          "tasks": {"t": {"labels": ["x", "y"], "abstain": {"greatest_disagreement": 0.5}}}})",
                      "team.json");
  check_refused([&] { (void)read_manifest(json.root()); }, Code::mismatch, "greatest_disagreement");
}
