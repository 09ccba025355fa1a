#include <finteam/file/config.hpp>

#include "file/support.hpp"

#include <cmath>

using finteam::Code;
using finteam::Config;
using finteam::parse_config;
using finteam::read_config;
using finteam::RopeType;

namespace {

/// A config with the keys that are needed, and `more` (begins with a comma, or is empty).
std::string config_json(std::string_view more) {
  return R"({"model_type":"llama","vocab_size":128256,"hidden_size":4096,"num_hidden_layers":32,)"
         R"("num_attention_heads":32,"intermediate_size":14336)" +
         std::string(more) + "}";
}
Config parse(std::string_view more) { return parse_config(config_json(more), "config.json"); }

}  // namespace

TEST_CASE("Llama 2: as many key/value heads as heads, no scaling", "[file]") {
  const Config c = parse_config(R"({"architectures":["LlamaForCausalLM"],"bos_token_id":1,"eos_token_id":2,
      "hidden_act":"silu","hidden_size":4096,"initializer_range":0.02,"intermediate_size":11008,
      "max_position_embeddings":4096,"model_type":"llama","num_attention_heads":32,"num_hidden_layers":32,
      "num_key_value_heads":32,"pretraining_tp":1,"rms_norm_eps":1e-05,"rope_scaling":null,
      "tie_word_embeddings":false,"torch_dtype":"float16","transformers_version":"4.31.0.dev0","use_cache":true,
      "vocab_size":32000})",
                                "llama-2/config.json");
  CHECK(c.where == "llama-2/config.json");
  CHECK(c.v == 32000);
  CHECK(c.d == 4096);
  CHECK(c.layers == 32);
  CHECK(c.h == 32);
  CHECK(c.g == 32);
  CHECK(c.e == 128);
  CHECK(c.f == 11008);
  CHECK(c.max_positions == 4096);
  CHECK(c.rms_norm_eps == 1e-5);
  CHECK_FALSE(c.tie_word_embeddings);
  CHECK(c.rope == finteam::RopeConfig{});
  CHECK(c.bos == 1);
  CHECK(c.eos == std::vector<std::int32_t>{2});
}

TEST_CASE("Mixtral: experts behind routers, and other defaults than Llama's", "[file]") {
  const Config c = parse_config(R"({"architectures":["MixtralForCausalLM"],"attention_dropout":0.0,"bos_token_id":1,
      "eos_token_id":2,"hidden_act":"silu","hidden_size":4096,"initializer_range":0.02,"intermediate_size":14336,
      "model_type":"mixtral","num_attention_heads":32,"num_experts_per_tok":2,"num_hidden_layers":32,
      "num_key_value_heads":8,"num_local_experts":8,"output_router_logits":false,"router_aux_loss_coef":0.02,
      "sliding_window":null,"tie_word_embeddings":false,"torch_dtype":"bfloat16","transformers_version":"4.36.0.dev0",
      "use_cache":true,"vocab_size":32000})",
                                "mixtral/config.json");
  CHECK(c.is_routed());
  CHECK(c.experts == 8);
  CHECK(c.experts_per_token == 2);
  CHECK(c.g == 8);
  CHECK(c.max_positions == 131072);
  CHECK(c.rms_norm_eps == 1e-5);
  CHECK(c.rope.theta == 1e6);
  const Config llama = parse("");
  CHECK_FALSE(llama.is_routed());
  CHECK(llama.experts == 1);
  CHECK(llama.rope.theta == 1e4);
}

TEST_CASE("Mistral: a window, of 4,096 positions if nothing is said, and none if it is null", "[file]") {
  const auto mistral = [](const std::string& more) {
    return parse_config(R"({"model_type": "mistral", "vocab_size": 32000, "hidden_size": 4096, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336)" +
                            more + "}",
                        "mistral/config.json");
  };
  const Config c = mistral(R"(, "sliding_window": 1024)");
  CHECK(c.window == 1024);
  CHECK(c.max_positions == 131072);
  CHECK(c.rms_norm_eps == 1e-6);
  CHECK(c.rope.theta == 1e4);
  CHECK_FALSE(c.is_routed());
  CHECK(mistral("").window == 4096);
  CHECK(mistral(R"(, "sliding_window": null)").window == 0);
  CHECK(parse("").window == 0);
  CHECK_THROWS_AS(mistral(R"(, "sliding_window": 0)"), finteam::Error);
  CHECK_THROWS_AS(mistral(R"(, "sliding_window": -1)"), finteam::Error);
}

TEST_CASE("Llama 3.2: tied, a head width of its own, llama3 scaling, several ends, as transformers 4 writes it",
          "[file]") {
  const Config c = parse_config(R"({"attention_bias":false,"attention_dropout":0.0,"bos_token_id":128000,
      "eos_token_id":[128001,128008,128009],"head_dim":64,"hidden_act":"silu","hidden_size":2048,
      "intermediate_size":8192,"max_position_embeddings":131072,"mlp_bias":false,"model_type":"llama",
      "num_attention_heads":32,"num_hidden_layers":16,"num_key_value_heads":8,"pretraining_tp":1,"rms_norm_eps":1e-05,
      "rope_scaling":{"factor":32.0,"high_freq_factor":4.0,"low_freq_factor":1.0,
      "original_max_position_embeddings":8192,"rope_type":"llama3"},"rope_theta":500000.0,"tie_word_embeddings":true,
      "torch_dtype":"bfloat16","vocab_size":128256})",
                                "config.json");
  CHECK(c.g == 8);
  CHECK(c.e == 64);
  CHECK(c.tie_word_embeddings);
  CHECK(c.rope.type == RopeType::llama3);
  CHECK(c.rope.theta == 500000.0);
  CHECK(c.rope.factor == 32.0);
  CHECK(c.rope.low_freq_factor == 1.0);
  CHECK(c.rope.high_freq_factor == 4.0);
  CHECK(c.rope.original_max_positions == 8192);
  CHECK(c.eos == std::vector<std::int32_t>{128001, 128008, 128009});
}

TEST_CASE("Rope in transformers 5's words is rope in transformers 4's words", "[file]") {
  constexpr auto scaled = R"("factor":8.0,"high_freq_factor":4.0,"low_freq_factor":1.0,)"
                          R"("original_max_position_embeddings":8192,"rope_type":"llama3")";
  const std::string four = std::string(R"(,"rope_theta":500000.0,"rope_scaling":{)") + scaled + "}";
  const std::string five = std::string(R"(,"rope_parameters":{"rope_theta":500000.0,)") + scaled + "}";
  CHECK(parse(four).rope == parse(five).rope);
  CHECK(parse(four + five).rope == parse(five).rope);
  CHECK(parse(five).rope.theta == 500000.0);
  CHECK(parse(R"(,"rope_parameters":{"rope_theta":1e6,"rope_type":"default"})").rope.theta == 1e6);
  CHECK(parse(R"(,"rope_theta":2e4,"rope_parameters":{"rope_type":"default"})").rope.theta == 2e4);
  CHECK(parse(R"(,"rope_scaling":{"type":"default"})").rope == finteam::RopeConfig{});
}

TEST_CASE("Linear scaling is read with the older word for its type", "[file]") {
  const Config c = parse(R"(,"rope_scaling":{"type":"linear","factor":2})");
  CHECK(c.rope.type == RopeType::linear);
  CHECK(c.rope.factor == 2.0);
  CHECK(parse(R"(,"rope_scaling":{"type":"linear","rope_type":"linear","factor":2})").rope == c.rope);
}

TEST_CASE("What a config leaves out is as LlamaConfig has it", "[file]") {
  const Config c = parse(
      R"(,"head_dim":null,"num_key_value_heads":null,"eos_token_id":null,"unknown_key":"","another":false,"third":[],"_private":7)");
  CHECK(c.g == 32);
  CHECK(c.e == 128);
  CHECK(c.max_positions == 2048);
  CHECK(c.rms_norm_eps == 1e-6);
  CHECK(c.rope.theta == 10000.0);
  CHECK_FALSE(c.tie_word_embeddings);
  CHECK_FALSE(c.bos);
  CHECK(c.eos.empty());
}

TEST_CASE("An integer may be written as a float, and a head may be wider than d / h", "[file]") {
  const Config c = parse(R"(,"max_position_embeddings":1e5,"head_dim":256.0)");
  CHECK(c.max_positions == 100'000);
  CHECK(c.e == 256);
}

TEST_CASE("The ends of generation_config.json are added once each", "[file]") {
  const test::Folder folder;
  folder.write("micro/config.json", config_json(R"(,"eos_token_id":128001)"));
  CHECK(read_config(folder / "micro").eos == std::vector<std::int32_t>{128001});
  folder.write("micro/generation_config.json",
               R"({"eos_token_id":[128009,128001],"bos_token_id":128000,"temperature":0.6})");
  const Config c = read_config(folder / "micro");
  CHECK(c.eos == std::vector<std::int32_t>{128001, 128009});
  CHECK(c.bos == 128000);
  CHECK(c.where == "micro/config.json");
  folder.write("micro/config.json", config_json(R"(,"bos_token_id":5)"));
  CHECK(read_config(folder / "micro").bos == 5);
  folder.write("micro/generation_config.json", R"({"eos_token_id":128256})");
  test::require_refusal(
      [&] { (void)read_config(folder / "micro"); }, Code::malformed,
      "micro/generation_config.json: eos_token_id: expected an integer from 0 to 128255, found 128256");
}

TEST_CASE("A folder without a config is refused", "[file][law5][refused]") {
  const test::Folder folder;
  test::require_refusal([&] { (void)read_config(folder.path()); }, Code::not_found, "config.json: expected a file");
}

namespace {

/// A config of a family as it lies in its maker's repository, but small.
Config of_family(const std::string& family, const std::string& more) {
  return parse_config(R"({"model_type":")" + family + R"(","vocab_size":32000,"hidden_size":64,"num_hidden_layers":6,
      "num_attention_heads":4,"num_key_value_heads":2,"intermediate_size":96)" +
                          more + "}",
                      "config.json");
}

}  // namespace

TEST_CASE("Phi-3's long contexts have factors by the length that a sequence may come to", "[file]") {
  const Config c = of_family("phi3", R"(,"max_position_embeddings":131072,"original_max_position_embeddings":4096,
      "rope_scaling":{"type":"su","short_factor":[1,1,1,1,1,1,1,2],"long_factor":[1,2,3,4,5,6,7,8]},
      "sliding_window":2047,"rope_theta":10000.0,"resid_pdrop":0.0,"embd_pdrop":0.0,"attention_bias":false)");
  CHECK(c.fused_projections);
  CHECK(c.window == 2047);
  CHECK(c.rope.type == RopeType::longrope);
  CHECK(c.rope.attention_factor == std::sqrt(1 + std::log(32.0) / std::log(4096.0)));
  CHECK(!c.rope.is_long(4096));
  CHECK(c.rope.is_long(4097));
  const Config five = of_family("phi3", R"(,"max_position_embeddings":131072,"original_max_position_embeddings":4096,
      "rope_parameters":{"rope_type":"longrope","rope_theta":10000.0,"partial_rotary_factor":0.5,
      "original_max_position_embeddings":4096,"short_factor":[1,1,1,1],"long_factor":[1,2,3,4]})");
  CHECK(five.rope.share == 0.5);
  CHECK(five.rope.width(five.e) == 8);
  CHECK(five.window == 0);
  CHECK(of_family("phi3", "").rope == finteam::RopeConfig{});  // Phi-4
  CHECK_NOTHROW(of_family("phi3", R"(,"full_attn_mod":1,"interpolate_factor":1,"lm_head_bias":false)"));
  CHECK_THROWS_AS(of_family("phi3", R"(,"interpolate_factor":2)"), finteam::Error);
}

TEST_CASE("Qwen's windows are off unless it uses them, and then begin at a layer", "[file]") {
  const std::string window = R"(,"sliding_window":32768,"max_window_layers":4,"use_mrope":false)";
  const Config off = of_family("qwen2", window + R"(,"use_sliding_window":false)");
  CHECK(off.qkv_bias);
  CHECK(!off.o_bias);
  CHECK(!off.has_window(5));
  const Config on = of_family("qwen2", window + R"(,"use_sliding_window":true)");
  CHECK(!on.has_window(3));
  CHECK(on.has_window(4));
  const Config three = of_family("qwen3", window + R"(,"attention_bias":false)");
  CHECK(three.e == 128);
  CHECK(three.head_norm == finteam::HeadNorm::each);
  CHECK(!three.qkv_bias);
}

TEST_CASE("Qwen3-MoE's experts have a width of their own", "[file]") {
  const Config c = of_family("qwen3_moe", R"(,"num_experts":8,"num_experts_per_tok":3,"moe_intermediate_size":24,
      "norm_topk_prob":true,"decoder_sparse_step":1,"mlp_only_layers":[],"router_aux_loss_coef":0.001,"head_dim":32)");
  CHECK(c.f == 24);
  CHECK(c.experts == 8);
  CHECK(c.experts_per_token == 3);
  CHECK(c.experts_renormalise);
}

TEST_CASE("Gemma 2 and 3 alternate windows, cap, and scale as their makers' files say", "[file]") {
  const Config two = of_family("gemma2", R"(,"hidden_act":"gelu_pytorch_tanh","hidden_activation":"gelu_pytorch_tanh",
      "attn_logit_softcapping":50.0,"final_logit_softcapping":30.0,"query_pre_attn_scalar":144,"sliding_window":4096,
      "cache_implementation":"hybrid","head_dim":32)");
  CHECK(two.activation.kind == finteam::Activation::Kind::gelu_tanh);
  CHECK(two.norms == finteam::NormPlace::around);
  CHECK(two.norms_add_one);
  CHECK(two.tie_word_embeddings);
  CHECK(two.embedding_scale == 8);
  CHECK(two.score_scale == 1.0 / 12);
  CHECK(two.score_cap == 50);
  CHECK(two.logit_cap == 30);
  CHECK(two.has_window(0));
  CHECK(!two.has_window(1));
  CHECK(!two.window_rope);
  const Config three = of_family("gemma3_text", R"(,"attn_logit_softcapping":null,"final_logit_softcapping":null,
      "rope_local_base_freq":10000,"rope_theta":1000000,"rope_scaling":null,"sliding_window":512,
      "sliding_window_pattern":6,"query_pre_attn_scalar":256)");
  CHECK(three.e == 256);
  CHECK(three.score_cap == 0);
  CHECK(three.rope.theta == 1e6);
  CHECK(three.window_rope->theta == 1e4);
  CHECK(three.has_window(4));
  CHECK(!three.has_window(5));
}

TEST_CASE("SmolLM3 leaves rope out of every fourth layer, OLMo 2 norms what its layers give", "[file]") {
  const Config c = of_family("smollm3", R"(,"no_rope_layers":[1,1,1,0,1,1],"use_sliding_window":false,
      "sliding_window":null,"max_window_layers":28,"layer_types":["full_attention","full_attention","full_attention",
      "full_attention","full_attention","full_attention"])");
  CHECK(c.has_rope(2));
  CHECK(!c.has_rope(3));
  CHECK(c.rope.theta == 2e6);
  CHECK(c.tie_word_embeddings);
  CHECK(of_family("smollm3", "").rotates == c.rotates);
  const Config olmo = of_family("olmo2", R"(,"rope_theta":500000,"attention_bias":false)");
  CHECK(olmo.norms == finteam::NormPlace::behind);
  CHECK(olmo.head_norm == finteam::HeadNorm::all);
  CHECK(olmo.rms_norm_eps == 1e-5);
}

TEST_CASE("Rope without its first length, or factor, takes them from the positions, as transformers does", "[file]") {
  const Config c = of_family(
      "qwen2", R"(,"max_position_embeddings":4096,"rope_scaling":{"type":"yarn","factor":2.0,"attn_factor":0.8})");
  CHECK(c.rope.original_max_positions == 4096);
  const Config ratio = of_family("qwen2", R"(,"max_position_embeddings":4096,
      "rope_scaling":{"type":"yarn","factor":null,"original_max_position_embeddings":1024})");
  CHECK(ratio.rope.factor == 4);
  CHECK_NOTHROW(of_family("phi3", R"(,"max_position_embeddings":131072,"original_max_position_embeddings":4096,
      "rope_scaling":{"type":"su","rope_type":"longrope","short_factor":[1,1,1,1,1,1,1,2],
      "long_factor":[1,2,3,4,5,6,7,8]})"));
}

TEST_CASE("YaRN's factor of cosines follows from its own, or from two scales, or is stated", "[file]") {
  const auto factor = [](const std::string& more) {
    return of_family(
               "qwen2",
               R"(,"rope_scaling":{"type":"yarn","factor":4.0,"original_max_position_embeddings":32768)" + more + "}")
        .rope.attention_factor;
  };
  CHECK(factor("") == 0.1 * std::log(4.0) + 1);
  CHECK(factor(R"(,"mscale":0.5,"mscale_all_dim":1.0)") == (0.05 * std::log(4.0) + 1) / (0.1 * std::log(4.0) + 1));
  CHECK(factor(R"(,"attention_factor":1.25)") == 1.25);
}
