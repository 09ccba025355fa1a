// Parity with PyTorch, family by family: the goldens of tools/make_goldens.py, tools/make_family_goldens.py and
// tools/make_storage_goldens.py, held by every backend.

#include "expert/parity.hpp"

using parity::changed;
using parity::hold_to_golden;
using namespace finteam;

TEMPLATE_TEST_CASE("Llama 2: as many key heads as heads, config.json without rope_theta and head_dim", "[parity]",
                   Reference, Cpu) {
  hold_to_golden<TestType>("llama2");
}

TEMPLATE_TEST_CASE("Llama 3: bf16, grouped key heads, rope_theta outside", "[parity]", Reference, Cpu) {
  hold_to_golden<TestType>("llama3");
}

TEMPLATE_TEST_CASE("Llama 3.1: scaled rope as transformers 5 writes it", "[parity]", Reference, Cpu) {
  hold_to_golden<TestType>("llama31");
}

TEMPLATE_TEST_CASE("Llama 3.2: tied, head_dim given, scaled rope as transformers 4 wrote it", "[parity]", Reference,
                   Cpu) {
  hold_to_golden<TestType>("llama32");
}

TEMPLATE_TEST_CASE("Llama in four shards and an index, linearly scaled rope", "[parity]", Reference, Cpu) {
  hold_to_golden<TestType>("sharded");
}

TEMPLATE_TEST_CASE("Llama in f16 with subnormals, and an odd feed-forward width", "[parity]", Reference, Cpu) {
  hold_to_golden<TestType>("f16");
}

TEMPLATE_TEST_CASE("Llama with one key head, large eps", "[parity]", Reference, Cpu) {
  hold_to_golden<TestType>("mqa");
}

TEMPLATE_TEST_CASE("Llama with biases in attention and feed-forward", "[parity]", Reference, Cpu) {
  hold_to_golden<TestType>("llama_bias");
}

TEMPLATE_TEST_CASE("Mistral: a window, which ends within a page", "[parity]", Reference, Cpu) {
  hold_to_golden<TestType>("mistral");
}

TEMPLATE_TEST_CASE(
    "Phi-3: fused projections, half-rotated heads, long and short factors by the length of a sequence, a window",
    "[parity]", Reference, Cpu) {
  hold_to_golden<TestType>("phi3");
}

TEMPLATE_TEST_CASE("Qwen 2.5: biases, windows in the later layers, YaRN", "[parity]", Reference, Cpu) {
  hold_to_golden<TestType>("qwen2");
}

TEMPLATE_TEST_CASE("Qwen 3: norms of heads, tied, head_dim given", "[parity]", Reference, Cpu) {
  hold_to_golden<TestType>("qwen3");
}

TEMPLATE_TEST_CASE("Qwen 3 MoE: experts whose weights do not sum to one", "[parity]", Reference, Cpu) {
  hold_to_golden<TestType>("qwen3_moe");
}

TEMPLATE_TEST_CASE("Gemma 2: norms around, 1 + w, capped scores and logits, alternating windows, scaled embeddings",
                   "[parity]", Reference, Cpu) {
  hold_to_golden<TestType>("gemma2");
}

TEMPLATE_TEST_CASE("Gemma 3: two ropes, norms of heads, alternating windows", "[parity]", Reference, Cpu) {
  hold_to_golden<TestType>("gemma3");
}

TEMPLATE_TEST_CASE("SmolLM3: every other layer without rope", "[parity]", Reference, Cpu) {
  hold_to_golden<TestType>("smollm3");
}

TEMPLATE_TEST_CASE("OLMo 2: norms behind, norms over all heads", "[parity]", Reference, Cpu) {
  hold_to_golden<TestType>("olmo2");
}

TEMPLATE_TEST_CASE("gpt-oss: MXFP4 experts with biases, sinks, clamped gates, alternating windows, YaRN", "[parity]",
                   Reference, Cpu) {
  hold_to_golden<TestType>("gpt_oss");
}

TEMPLATE_TEST_CASE("gpt-oss as transformers saves it: experts in bf16, transposed", "[parity]", Reference, Cpu) {
  hold_to_golden<TestType>("gpt_oss_plain");
}

TEMPLATE_TEST_CASE("GPTQ: four bits with zero points, inputs in an order of their own", "[parity]", Reference, Cpu) {
  hold_to_golden<TestType>("gptq");
}

TEMPLATE_TEST_CASE("AWQ: four bits with zero points, outputs interleaved", "[parity]", Reference, Cpu) {
  hold_to_golden<TestType>("awq");
}

TEMPLATE_TEST_CASE("compressed-tensors: packed four bits, with zero points and without", "[parity]", Reference, Cpu) {
  hold_to_golden<TestType>("compressed");
}

TEMPLATE_TEST_CASE("FP8 with a scale for every block", "[parity]", Reference, Cpu) { hold_to_golden<TestType>("fp8"); }

TEMPLATE_TEST_CASE("FP8 with a scale for every row, or for the tensor", "[parity]", Reference, Cpu) {
  hold_to_golden<TestType>("fp8_rows");
}

TEST_CASE("a constant of the config that is read wrongly misses the goldens by more than 100 tolerances", "[parity]") {
  constexpr double far = 100 * tolerance::parity;
  const test::Golden llama2("llama2"), llama31("llama31"), llama32("llama32"), sharded("sharded"), mqa("mqa"),
      mistral("mistral");
  CHECK(changed(llama2, [](Config& c) { c.rope.theta = 500'000; }) > far);
  CHECK(changed(llama2, [](Config& c) { c.rms_norm_eps = 1e-6; }) > far);
  CHECK(changed(mqa, [](Config& c) { c.rms_norm_eps = 1e-3; }) > far);
  CHECK(changed(sharded, [](Config& c) { c.rope.type = RopeType::none; }) > far);
  CHECK(changed(mistral, [](Config& c) { c.window = 0; }) > far);
  CHECK(changed(mistral, [](Config& c) { --c.window; }) > far);
  CHECK(changed(mistral, [](Config& c) { ++c.window; }) > far);
  CHECK(changed(llama31, [](Config& c) { c.rope.type = RopeType::none; }) > far);
  CHECK(changed(llama31, [](Config& c) { c.rope.type = RopeType::linear; }) > far);
  CHECK(changed(llama31, [](Config& c) { c.rope.original_max_positions = c.max_positions; }) > far);
  CHECK(changed(llama32, [](Config& c) { c.rope.factor = 4; }) > far);
  CHECK(changed(llama32, [](Config& c) { c.rope.theta = 10'000; }) > far);
}

TEST_CASE("a difference of a family that is left out misses its golden by more than 100 tolerances", "[parity]") {
  constexpr double far = 100 * tolerance::parity;
  const test::Golden phi3("phi3"), qwen2("qwen2"), qwen3_moe("qwen3_moe"), gemma2("gemma2"), gemma3("gemma3"),
      smollm3("smollm3"), bias("llama_bias"), qwen3("qwen3"), olmo2("olmo2");
  CHECK(changed(bias, [](Config& c) { c.rms_norm_eps = 1e-2; }) > far);
  CHECK(changed(phi3, [](Config& c) { c.rope.short_factor = c.rope.long_factor; }) > far);
  CHECK(changed(phi3, [](Config& c) { c.rope.long_factor = c.rope.short_factor; }) > far);
  CHECK(changed(phi3, [](Config& c) { c.rope.attention_factor = 1; }) > far);
  CHECK(changed(phi3, [](Config& c) { ++c.window; }) > far);
  CHECK(changed(qwen2, [](Config& c) { c.sees_all = {true, true, true}; }) > far);
  CHECK(changed(qwen2, [](Config& c) { c.sees_all.clear(); }) > far);
  CHECK(changed(qwen2, [](Config& c) { c.rope.truncate = !c.rope.truncate; }) > far);
  CHECK(changed(qwen2, [](Config& c) { c.rope.beta_fast /= 2; }) > far);
  CHECK(changed(qwen2, [](Config& c) { c.rope.attention_factor = 1; }) > far);
  CHECK(changed(qwen3, [](Config& c) { c.rope.theta = 1e4; }) > far);
  CHECK(changed(qwen3_moe, [](Config& c) { c.experts_renormalise = true; }) > far);
  CHECK(changed(gemma2, [](Config& c) { c.score_cap = 0; }) > far);
  CHECK(changed(gemma2, [](Config& c) { c.logit_cap = 0; }) > far);
  CHECK(changed(gemma2, [](Config& c) { c.score_scale = 0; }) > far);
  CHECK(changed(gemma2, [](Config& c) { c.embedding_scale = 1; }) > far);
  CHECK(changed(gemma2, [](Config& c) { c.norms_add_one = false; }) > far);
  CHECK(changed(gemma2, [](Config& c) { c.activation = {}; }) > far);
  CHECK(changed(gemma2, [](Config& c) { c.sees_all.flip(); }) > far);
  CHECK(changed(gemma3, [](Config& c) { c.window_rope.reset(); }) > far);
  CHECK(changed(gemma3, [](Config& c) { std::swap(c.rope.theta, c.window_rope->theta); }) > far);
  CHECK(changed(gemma3, [](Config& c) { c.rope.type = RopeType::none; }) > far);
  CHECK(changed(smollm3, [](Config& c) { c.rotates.clear(); }) > far);
  CHECK(changed(smollm3, [](Config& c) { c.rotates.flip(); }) > far);
  CHECK(changed(olmo2, [](Config& c) { c.rms_norm_eps = 1e-2; }) > far);
  const test::Golden gpt_oss("gpt_oss"), gptq("gptq");
  CHECK(changed(gpt_oss, [](Config& c) { c.activation.alpha = 1; }) > far);
  CHECK(changed(gpt_oss, [](Config& c) { c.activation.limit = 7; }) > far);
  CHECK(changed(gpt_oss, [](Config& c) { c.activation = {}; }) > far);
  CHECK(changed(gpt_oss, [](Config& c) { c.rope.truncate = true; }) > far);
  CHECK(changed(gpt_oss, [](Config& c) { c.sees_all.flip(); }) > far);
  CHECK(changed(gptq, [](Config& c) { c.quantization.zero_plus_one = false; }) > far);
}
