// What becomes of each tensor: choices by name, and what is refused.

#include "catch.hpp"
#include "expert/parity.hpp"

#include <finteam/backend/cpu.hpp>
#include <finteam/backend/reference.hpp>
#include <finteam/expert/decoder.hpp>

#include <map>

using namespace finteam;

namespace {

/// Formats by the names of the table.
std::map<std::string, Format> formats(const test::Golden& golden, const OpenOptions& options) {
  std::map<std::string, Format> all;
  for (const SourceWeight& w : find_weights(golden.checkpoint, golden.config, options)) {
    if (!w.is_vector()) all.emplace(w.name(), w.panels().format());
  }
  return all;
}

Error refusal(const test::Golden& golden, const OpenOptions& options) {
  try {
    (void)find_weights(golden.checkpoint, golden.config, options);
  } catch (const Error& e) {
    return e;
  }
  FAIL("it was accepted");
  return {Code::system, "", "", ""};
}

}  // namespace

TEST_CASE("every matrix has the weights that were asked for, but those of a choice", "[expert]") {
  const test::Golden golden("llama3");
  const auto all = formats(golden, {.weights = Weights::int4,
                                    .choices = {{"lm_head", Weights::int8},
                                                {"layers.0.mlp.down", Weights::bf16},
                                                {"down_proj", Weights::int4_zero},
                                                {".1.self_attn.", Weights::stored}}});
  REQUIRE(all.size() == static_cast<std::size_t>(2 + 4 * golden.config.layers));
  for (const auto& [name, format] : all) {
    CAPTURE(name);
    const bool head = name == "lm_head.weight", down = name.find("down_proj") != std::string::npos;
    const bool first = name.find(".0.") != std::string::npos;
    const bool stored = name.find(".1.self_attn") != std::string::npos;
    CHECK(format == (head            ? Format::int8
                     : down && first ? Format::bf16
                     : down          ? Format::int4_zero
                     : stored        ? Format::bf16_wide
                                     : Format::int4));
  }
}

TEST_CASE("a tied head goes by both of its names", "[expert]") {
  const test::Golden golden("llama32");
  REQUIRE(golden.config.tie_word_embeddings);
  for (const char* part : {"lm_head", "embed_tokens"}) {
    const auto all = formats(golden, {.weights = Weights::int4, .choices = {{part, Weights::int8}}});
    CHECK(all.at("model.embed_tokens.weight") == Format::int8);
    CHECK(all.at("model.layers.0.self_attn.o_proj.weight") == Format::int4);
  }
}

TEST_CASE("a choice reaches the products: a head in 8 bits changes logits, and brings them nearer", "[expert]") {
  const test::Golden golden("llama3");
  const auto exact = parity::last_logits(golden, {}, {}, "0");
  const auto distance = [&](const std::vector<float>& y) {
    double sum = 0;
    for (std::size_t i = 0; i < y.size(); ++i) sum += std::pow(static_cast<double>(y[i] - exact[i]), 2);
    return sum;
  };
  const auto plain = parity::last_logits(golden, {.weights = Weights::int4}, {}, "0");
  const auto head =
      parity::last_logits(golden, {.weights = Weights::int4, .choices = {{"lm_head", Weights::int8}}}, {}, "0");
  const auto most =
      parity::last_logits(golden, {.weights = Weights::int4, .choices = {{"weight", Weights::int8}}}, {}, "0");
  CHECK(distance(plain) > 0);
  CHECK(head != plain);
  CHECK(distance(most) < 0.5 * distance(plain));
  CHECK(most == parity::last_logits(golden, {.weights = Weights::int8}, {}, "0"));
}

TEST_CASE("choices that part what one product reads are refused", "[expert][law5][refused]") {
  const test::Golden golden("llama3");
  for (const char* part : {"q_proj", "k_proj", "v_proj", "layers.1.self_attn.v_proj", "gate_proj", "up_proj"}) {
    const Error e = refusal(golden, {.choices = {{part, Weights::int8}}});
    CAPTURE(e.what());
    CHECK(e.code() == Code::invalid_argument);
    CHECK(e.where() == "choices");
    CHECK(e.expected().find(part) != std::string::npos);
  }
  CHECK_NOTHROW(
      formats(golden, {.choices = {{"q_proj", Weights::int8}, {"k_proj", Weights::int8}, {"v_proj", Weights::int8}}}));
}

TEST_CASE("a choice that fits no matrix is refused, also where it fits a norm", "[expert][law5][refused]") {
  const test::Golden golden("llama3");
  for (const char* part : {"lm_haed", "layers.99.", "input_layernorm", "model.norm", "LM_HEAD"}) {
    const Error e = refusal(golden, {.choices = {{"lm_head", Weights::int8}, {part, Weights::int8}}});
    CAPTURE(e.what());
    CHECK(e.code() == Code::invalid_argument);
    CHECK(e.found() == "\"" + std::string(part) + "\"");
  }
}
