// Model families on the CUDA backend against transformers' goldens, as on every other backend. On the host its kernels
// are slow: there, greedy texts are those of one family.
#include <finteam/backend/cuda.hpp>

#include "catch.hpp"
#include "expert/parity.hpp"

TEST_CASE("logits and greedy texts of the CUDA backend are those of transformers, family by family", "[cuda][parity]") {
  const std::string name = GENERATE(values<std::string>(
      {"llama2",  "llama3",  "llama31",       "llama32", "sharded",   "f16",        "mqa",    "llama_bias",
       "mistral", "phi3",    "qwen2",         "qwen3",   "qwen3_moe", "gemma2",     "gemma3", "smollm3",
       "olmo2",   "gpt_oss", "gpt_oss_plain", "gptq",    "awq",       "compressed", "fp8",    "fp8_rows"}));
#ifdef FINTEAM_TEST_GPU
  parity::hold_to_golden<finteam::Cuda>(name);
#else
  if (name == "llama32") return parity::hold_to_golden<finteam::Cuda>(name);
  const test::Golden golden(name);
  CAPTURE(name);
  CHECK(parity::miss<finteam::Cuda>(golden, golden.config) <= tolerance::parity);
#endif
}
