// The files that must be refused, one test each: its bytes, the code, and words that the message must hold.
// Beside it, tests/refused/ holds small hostile files (made by make.py), which are the seeds of the fuzz targets too.
#include <finteam/file/config.hpp>
#include <finteam/file/safetensors.hpp>

#include <algorithm>
#include <chrono>

#include "file/support.hpp"

using namespace std::string_literals;
using finteam::Code;
using test::entry;
using test::length_bytes;
using test::safetensors;

namespace {

void open_safetensors(std::string_view bytes) {
  (void)finteam::Safetensors::parse(test::as_bytes(bytes), "m.safetensors");
}
void open_json(std::string_view text) { (void)finteam::parse_json(text, "m.json"); }
void open_config(std::string_view text) { (void)finteam::parse_config(text, "config.json"); }

/// {"w": entry}
std::string one(const std::string& e) { return "{\"w\":" + e + "}"; }

std::string repeat(std::string_view text, std::size_t n) {
  std::string s;
  for (std::size_t i = 0; i < n; ++i) s += text;
  return s;
}

/// A good config with one member replaced or added: both are JSON.
std::string config(std::string_view key, std::string_view value) {
  finteam::Json json = finteam::parse_json(
      R"({"model_type":"llama","vocab_size":100,"hidden_size":64,"num_hidden_layers":2,"num_attention_heads":4,)"
      R"("intermediate_size":96,"rope_theta":1e4})",
      "good");
  json[std::string(key)] = finteam::parse_json(value, "value");
  return json.dump();
}
std::string config_without(std::string_view key) {
  finteam::Json json = finteam::parse_json(config("bos_token_id", "1"), "good");
  REQUIRE(json.erase(std::string(key)) == 1);
  return json.dump();
}
/// A good llama3 scaling with one member replaced.
std::string scaling(std::string_view key, std::string_view value) {
  finteam::Json json =
      finteam::parse_json(R"({"rope_type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4,)"
                          R"("original_max_position_embeddings":8192})",
                          "good");
  json[std::string(key)] = finteam::parse_json(value, "value");
  return config("rope_scaling", json.dump());
}

/// A good config of a family with one member replaced or added.
std::string of_family(std::string_view family, std::string_view key, std::string_view value) {
  finteam::Json json = finteam::parse_json(config("num_key_value_heads", "2"), "good");
  json["model_type"] = std::string(family);
  json.erase("rope_theta");
  if (family == "phi3") {
    json["rope_scaling"] = {
        {"type", "su"}, {"short_factor", {1, 1, 1, 1, 1, 1, 1, 1}}, {"long_factor", {1, 2, 3, 4, 5, 6, 7, 8}}};
    json["original_max_position_embeddings"] = 4096;
  }
  if (family == "qwen3_moe") {
    json["num_experts"] = 4;
    json["num_experts_per_tok"] = 2;
    json["moe_intermediate_size"] = 32;
  }
  finteam::Json* at = &json;
  if (key.starts_with("rope_scaling.")) {
    at = &json["rope_scaling"];
    key.remove_prefix(std::string_view("rope_scaling.").size());
  }
  (*at)[std::string(key)] = finteam::parse_json(value, "value");
  return json.dump();
}

std::string two_scalings() {
  finteam::Json json = finteam::parse_json(scaling("factor", "8"), "good");
  json["rope_parameters"] = {{"rope_type", "linear"}, {"factor", 8}};
  return json.dump();
}

}  // namespace

#define REFUSES(kind, name, bytes, code, words)                              \
  TEST_CASE(#kind " refuses " name, "[file][law5][refused]") {               \
    const std::string hostile = bytes;                                       \
    test::require_refusal([&] { open_##kind(hostile); }, Code::code, words); \
  }

// safetensors: the length
REFUSES(safetensors, "an empty file", "", malformed, "at least 8 bytes, found 0")
REFUSES(safetensors, "seven bytes", "\1\0\0\0\0\0\0"s, malformed, "found 7")
REFUSES(safetensors, "a length of zero", length_bytes(0) + "{}", malformed, "starts with {")
REFUSES(safetensors, "a header past the end", length_bytes(3) + "{}", malformed, "at most 2 bytes, found 3")
REFUSES(safetensors, "a length of 2^64 - 1", length_bytes(~0ULL) + "{}", malformed, "found 18446744073709551615")
REFUSES(safetensors, "a length of 2^63", length_bytes(1ULL << 63) + "{}", malformed, "found 9223372036854775808")
REFUSES(safetensors, "a length that wraps around when 8 is added", length_bytes(~0ULL - 7) + "{}", malformed,
        "at most 2")
REFUSES(safetensors, "a big-endian length", "\0\0\0\0\0\0\0\2{}"s, malformed, "at most 2 bytes")
// safetensors: the header's JSON
REFUSES(safetensors, "a header that is an array", safetensors("[]"), malformed, "starts with {")
REFUSES(safetensors, "a header with space before it", safetensors(" {}"), malformed, "starts with {")
REFUSES(safetensors, "a byte order mark", safetensors("\xEF\xBB\xBF{}"), malformed, "starts with {")
REFUSES(safetensors, "a header that is cut", safetensors("{\"w\":"), malformed, "valid JSON")
REFUSES(safetensors, "a zero byte after the header", safetensors("{}\0"s), malformed, "a zero byte")
REFUSES(safetensors, "bytes after the header's object", safetensors("{}{}"), malformed, "valid JSON")
REFUSES(safetensors, "a name that is not UTF-8", safetensors("{\"\xC3(\":" + entry("F32", "[0]", "[0,0]") + "}"),
        malformed, "valid JSON in UTF-8")
REFUSES(safetensors, "a name twice",
        safetensors("{\"w\":" + entry("F32", "[1]", "[0,4]") + ",\"w\":" + entry("F32", "[1]", "[4,8]") + "}", 8),
        malformed, "\"w\" twice")
REFUSES(safetensors, "a dtype twice",
        safetensors(R"({"w":{"dtype":"F32","dtype":"F16","shape":[],"data_offsets":[0,4]}})", 4), malformed,
        "\"dtype\" twice")
REFUSES(safetensors, "a deep header", safetensors("{\"w\":" + std::string(90'000, '[')), limit_exceeded, "levels deep")
REFUSES(safetensors, "an entry that is no object", safetensors(R"({"w":3})"), malformed,
        "m.safetensors: w: expected an object, found 3")
REFUSES(safetensors, "an entry that is null", safetensors(R"({"w":null})"), malformed, "found null")
// safetensors: metadata
REFUSES(safetensors, "metadata that is a list", safetensors(R"({"__metadata__":["pt"]})"), malformed,
        "__metadata__: expected an object")
REFUSES(safetensors, "metadata whose value is a number", safetensors(R"({"__metadata__":{"format":1}})"), malformed,
        "__metadata__.format: expected a string, found 1")
// safetensors: dtype
REFUSES(safetensors, "an entry without a dtype", safetensors(R"({"w":{"shape":[],"data_offsets":[0,4]}})", 4),
        not_found, "key \"dtype\"")
REFUSES(safetensors, "an unknown dtype", safetensors(one(entry("F31", "[1]", "[0,4]")), 4), unsupported,
        "w.dtype: expected a known dtype, found \"F31\"")
REFUSES(safetensors, "a dtype in lower case", safetensors(one(entry("f32", "[1]", "[0,4]")), 4), unsupported,
        "found \"f32\"")
REFUSES(safetensors, "a dtype that is a number",
        safetensors(R"({"w":{"dtype":32,"shape":[1],"data_offsets":[0,4]}})", 4), malformed, "a string, found 32")
REFUSES(safetensors, "a dtype that is no text for a terminal", safetensors(one(entry("\\u001b[2J", "[1]", "[0,4]")), 4),
        unsupported, "\"\\x1b[2J\"")
// safetensors: shape
REFUSES(safetensors, "an entry without a shape", safetensors(R"({"w":{"dtype":"F32","data_offsets":[0,4]}})", 4),
        not_found, "key \"shape\"")
REFUSES(safetensors, "a shape that is a number", safetensors(one(entry("F32", "1", "[0,4]")), 4), malformed,
        "w.shape: expected an array, found 1")
REFUSES(safetensors, "a negative extent", safetensors(one(entry("F32", "[-1]", "[0,4]")), 4), malformed,
        "w.shape[0]: expected a non-negative integer, found -1")
REFUSES(safetensors, "two negative extents whose product is right",
        safetensors(one(entry("F32", "[-1,-1]", "[0,4]")), 4), malformed, "found -1")
REFUSES(safetensors, "a fractional extent", safetensors(one(entry("F32", "[1.5]", "[0,6]")), 6), malformed, "found 1.5")
REFUSES(safetensors, "an extent written as a float", safetensors(one(entry("F32", "[1.0]", "[0,4]")), 4), malformed,
        "found 1.0")
REFUSES(safetensors, "an extent that is a string", safetensors(one(entry("F32", R"(["1"])", "[0,4]")), 4), malformed,
        "found \"1\"")
REFUSES(safetensors, "an extent beyond 64 bits", safetensors(one(entry("F32", "[18446744073709551616]", "[0,0]"))),
        malformed, "w.shape[0]")
REFUSES(safetensors, "an extent beyond 63 bits", safetensors(one(entry("F32", "[9223372036854775808]", "[0,0]"))),
        malformed, "fits in memory")
REFUSES(safetensors, "a product that wraps around to four bytes",
        safetensors(one(entry("F32", "[4294967297,4294967295,1]", "[0,4]")), 4), malformed, "fits in memory")
REFUSES(safetensors, "a product that wraps around to zero",
        safetensors(one(entry("F32", "[4611686018427387904]", "[0,0]"))), malformed, "fits in memory")
REFUSES(safetensors, "extents that overflow behind a zero",
        safetensors(one(entry("F32", "[0,9223372036854775807,9223372036854775807]", "[0,0]"))), malformed,
        "fits in memory")
REFUSES(safetensors, "65 extents", safetensors(one(entry("F32", "[1" + repeat(",1", 64) + "]", "[0,4]")), 4),
        limit_exceeded, "at most 64 extents")
// safetensors: offsets
REFUSES(safetensors, "an entry without offsets", safetensors(R"({"w":{"dtype":"F32","shape":[1]}})", 4), not_found,
        "key \"data_offsets\"")
REFUSES(safetensors, "one offset", safetensors(one(entry("F32", "[1]", "[0]")), 4), malformed, "[begin, end]")
REFUSES(safetensors, "three offsets", safetensors(one(entry("F32", "[1]", "[0,4,8]")), 4), malformed, "[begin, end]")
REFUSES(safetensors, "offsets in the wrong order", safetensors(one(entry("F32", "[1]", "[4,0]")), 4), malformed,
        "found [4, 0]")
REFUSES(safetensors, "a negative offset", safetensors(one(entry("F32", "[1]", "[-4,0]")), 4), malformed,
        "data_offsets[0]")
REFUSES(safetensors, "an offset in scientific notation", safetensors(one(entry("F32", "[1]", "[0,4e0]")), 4), malformed,
        "data_offsets[1]")
REFUSES(safetensors, "fewer bytes than the shape needs", safetensors(one(entry("F32", "[2]", "[0,4]")), 4), malformed,
        "8 bytes for [2] of F32, found [0, 4]")
REFUSES(safetensors, "more bytes than the shape needs", safetensors(one(entry("BF16", "[2]", "[0,8]")), 8), malformed,
        "4 bytes for [2] of BF16")
REFUSES(safetensors, "data past the end of the file", safetensors(one(entry("F32", "[2]", "[0,8]")), 4), malformed,
        "w: expected an end within the file's 4 bytes of data, found 8")
REFUSES(safetensors, "offsets near 2^64",
        safetensors(one(entry("F32", "[1]", "[18446744073709551611,18446744073709551615]")), 4), malformed,
        "an end within")
REFUSES(safetensors, "bytes that no tensor owns at the end", safetensors(one(entry("F32", "[1]", "[0,4]")), 5),
        malformed, "4 bytes of data, as the header says, found 5")
REFUSES(safetensors, "bytes that no tensor owns at the start", safetensors(one(entry("F32", "[1]", "[4,8]")), 8),
        malformed, "data from byte 0, found 4, a hole")
REFUSES(safetensors, "data without any tensor", safetensors("{}", 4), malformed,
        "0 bytes of data, as the header says, found 4")
REFUSES(safetensors, "a hole between two tensors",
        safetensors("{\"a\":" + entry("F32", "[1]", "[0,4]") + ",\"b\":" + entry("F32", "[1]", "[8,12]") + "}", 12),
        malformed, "b: expected data from byte 4, found 8, a hole")
REFUSES(safetensors, "two tensors that overlap",
        safetensors("{\"a\":" + entry("F32", "[2]", "[0,8]") + ",\"b\":" + entry("F32", "[2]", "[4,12]") + "}", 12),
        malformed, "b: expected data from byte 8, found 4, an overlap")
REFUSES(safetensors, "two tensors in the same place",
        safetensors("{\"a\":" + entry("F32", "[1]", "[0,4]") + ",\"b\":" + entry("F32", "[1]", "[0,4]") + "}", 4),
        malformed, "an overlap")
REFUSES(safetensors, "an empty tensor in the middle of another",
        safetensors("{\"a\":" + entry("F32", "[2]", "[0,8]") + ",\"b\":" + entry("F32", "[0]", "[4,4]") + "}", 8),
        malformed, "an overlap")
REFUSES(safetensors, "an empty tensor past the end",
        safetensors("{\"a\":" + entry("F32", "[1]", "[0,4]") + ",\"b\":" + entry("F32", "[0]", "[8,8]") + "}", 4),
        malformed, "an end within")

// JSON
REFUSES(json, "nothing", "", malformed, "m.json: expected valid JSON in UTF-8")
REFUSES(json, "two values", "1 2", malformed, "an error at byte")
REFUSES(json, "a trailing comma", "[1,]", malformed, "an error at byte 4")
REFUSES(json, "a comment", "{} // no", malformed, "an error at byte")
REFUSES(json, "NaN", "[NaN]", malformed, "an error at byte")
REFUSES(json, "infinity", "1e999", malformed, "an error at byte")
REFUSES(json, "single quotes", "{'a':1}", malformed, "an error at byte")
REFUSES(json, "an open string", "\"abc", malformed, "an error at byte")
REFUSES(json, "a newline in a string", "\"a\nb\"", malformed, "an error at byte")
REFUSES(json, "half a surrogate pair", "\"\\ud83d\"", malformed, "an error at byte")
REFUSES(json, "a byte that is not UTF-8", "\"\xFF\"", malformed, "an error at byte 2")
REFUSES(json, "an overlong encoding", "\"\xC0\xAF\"", malformed, "an error at byte")
REFUSES(json, "a surrogate in UTF-8", "\"\xED\xA0\x80\"", malformed, "an error at byte")
REFUSES(json, "a zero byte in place of the end", "{}\0{\"a\":1}"s, malformed, "a zero byte at byte 2")
REFUSES(json, "a key twice behind an escape", R"({"a":1,"\u0061":2})", malformed, "\"a\" twice")
REFUSES(json, "a million open arrays", std::string(1'000'000, '['), limit_exceeded, "64 levels")
REFUSES(json, "a hundred thousand nested objects", repeat("{\"\":", 100'000), limit_exceeded, "64 levels")
REFUSES(json, "six million values", "[0" + repeat(",0", 6'000'000) + "]", limit_exceeded, "at most 5000000 JSON values")

// config.json
REFUSES(config, "what is no object", "[]", malformed, "config.json: expected an object, found an array of 0")
REFUSES(config, "a config without a model_type", config_without("model_type"), not_found,
        "config.json: expected key \"model_type\", found none")
REFUSES(config, "another family", config("model_type", "\"mamba\""), unsupported,
        "model_type: expected one of \"llama\", \"mistral\", \"mixtral\", \"phi3\", \"qwen2\"")
REFUSES(config, "a config without a vocabulary", config_without("vocab_size"), not_found, "key \"vocab_size\"")
REFUSES(config, "a config without layers", config_without("num_hidden_layers"), not_found, "key \"num_hidden_layers\"")
REFUSES(config, "an empty vocabulary", config("vocab_size", "0"), malformed,
        "vocab_size: expected an integer from 1 to 10000000, found 0")
REFUSES(config, "a negative width", config("hidden_size", "-64"), malformed, "hidden_size: expected an integer")
REFUSES(config, "a width that is huge", config("hidden_size", "1e300"), malformed, "hidden_size: expected an integer")
REFUSES(config, "a width that is a string", config("hidden_size", "\"64\""), malformed, "found \"64\"")
REFUSES(config, "a width that is null", config("hidden_size", "null"), malformed,
        "hidden_size: expected an integer from 1 to 1000000, found null")
REFUSES(config, "a fraction of a layer", config("num_hidden_layers", "1.5"), malformed,
        "num_hidden_layers: expected an integer from 1 to 1000, found 1.5")
REFUSES(config, "a million layers", config("num_hidden_layers", "1000000"), malformed, "num_hidden_layers")
REFUSES(config, "no heads", config("num_attention_heads", "0"), malformed, "num_attention_heads")
REFUSES(config, "heads that do not divide the width", config("num_attention_heads", "5"), mismatch,
        "hidden_size: expected a multiple of num_attention_heads 5, found 64")
REFUSES(config, "key/value heads that do not divide the heads", config("num_key_value_heads", "3"), mismatch,
        "num_key_value_heads: expected a divisor of num_attention_heads 4, found 3")
REFUSES(config, "more key/value heads than heads", config("num_key_value_heads", "8"), mismatch, "num_key_value_heads")
REFUSES(config, "no key/value heads", config("num_key_value_heads", "0"), malformed, "num_key_value_heads")
REFUSES(config, "an odd head width", config("head_dim", "17"), mismatch, "head_dim: expected an even width, found 17")
REFUSES(config, "an odd head width that it implies", config("num_attention_heads", "64"), mismatch,
        "head_dim: expected an even width, found 1")
REFUSES(config, "a huge head width", config("head_dim", "1000000"), malformed, "head_dim")
REFUSES(config, "a negative epsilon", config("rms_norm_eps", "-1e-5"), malformed, "rms_norm_eps")
REFUSES(config, "no positions", config("max_position_embeddings", "0"), malformed, "max_position_embeddings")
REFUSES(config, "an end outside the vocabulary", config("eos_token_id", "100"), malformed,
        "eos_token_id: expected an integer from 0 to 99, found 100")
REFUSES(config, "a negative end in a list", config("eos_token_id", "[2,-1]"), malformed, "eos_token_id[1]")
REFUSES(config, "a start outside the vocabulary", config("bos_token_id", "128000"), malformed, "bos_token_id")
REFUSES(config, "another activation", config("hidden_act", "\"gelu\""), unsupported,
        "hidden_act: expected \"silu\" or \"gelu_pytorch_tanh\", found \"gelu\"")
REFUSES(config, "a bias that is a number", config("attention_bias", "1"), malformed,
        "attention_bias: expected true or false, found 1")
REFUSES(config, "a key that another family has", config("attn_logit_softcapping", "50.0"), unsupported,
        "attn_logit_softcapping: expected no such key in a config of \"llama\"")
REFUSES(config, "a list that nobody knows", config("per_layer_widths", "[1, 2]"), unsupported, "per_layer_widths")
REFUSES(config, "attention to what comes after", config("is_causal", "false"), unsupported, "is_causal: expected true")
REFUSES(config, "a window under two names", of_family("gemma2", "sliding_window_size", "2048"), mismatch,
        "sliding_window_size: expected sliding_window, 4096, found 2048")
REFUSES(config, "a flag that nobody knows", config("use_parallel_residual", "true"), unsupported,
        "use_parallel_residual")
REFUSES(config, "weights that are quantised in a way that nobody knows",
        config("quantization_config", R"({"quant_method":"hqq"})"), unsupported,
        "quant_method: expected fp8, mxfp4, gptq, awq or compressed-tensors, found \"hqq\"")
REFUSES(config, "a rotation of half a head", config("partial_rotary_factor", "0.5"), unsupported,
        "partial_rotary_factor")
REFUSES(config, "a flag that is a number", config("tie_word_embeddings", "1"), malformed,
        "tie_word_embeddings: expected true or false, found 1")
REFUSES(config, "a theta of zero", config("rope_theta", "0"), malformed, "rope_theta")
REFUSES(config, "a rope type of the future", scaling("rope_type", "\"dynamic\""), unsupported,
        "rope_scaling.rope_type: expected default, linear, llama3, yarn or longrope, found \"dynamic\"")
REFUSES(config, "a key of rope that nobody knows", scaling("mrope_section", "[16, 24, 24]"), unsupported,
        "rope_scaling.mrope_section: expected a key of rope that is known")
REFUSES(config, "two rope types at once", scaling("type", "\"linear\""), mismatch,
        "rope_scaling.type: expected \"llama3\" as rope_type says, found \"linear\"")
REFUSES(config, "a rope factor that is a string", scaling("factor", "\"x\""), malformed,
        "config.json: rope_scaling.factor: expected a number, found \"x\"")
REFUSES(config, "a rope factor of zero", scaling("factor", "0"), malformed, "rope_scaling.factor")
REFUSES(config, "llama3 scaling without its first length",
        config("rope_scaling", R"({"rope_type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4})"),
        not_found, "rope_scaling: expected key \"original_max_position_embeddings\"")
REFUSES(config, "llama3 scaling whose band is empty", scaling("high_freq_factor", "1"), mismatch,
        "high_freq_factor: expected more than low_freq_factor, found 1")
REFUSES(config, "two thetas at once", config("rope_parameters", R"({"rope_type":"default","rope_theta":5e5})"),
        mismatch, "rope_parameters.rope_theta: expected rope_theta as elsewhere, 10000.0, found 500000.0")
REFUSES(config, "two scalings at once", two_scalings(), mismatch, "rope_scaling: expected the same as rope_parameters")

REFUSES(config, "layer types for fewer layers", of_family("gemma2", "layer_types", "[\"full_attention\"]"), mismatch,
        "layer_types: expected a type for each of 2 layers")
REFUSES(config, "a layer type of the future",
        of_family("gemma3_text", "layer_types", "[\"full_attention\",\"chunked_attention\"]"), unsupported,
        "layer_types[1]: expected full_attention or sliding_attention, found \"chunked_attention\"")
REFUSES(config, "sliding layers without a window", of_family("gemma2", "sliding_window", "null"), mismatch,
        "sliding_window: expected a window for sliding layers, found none")
REFUSES(config, "a cap of zero", of_family("gemma2", "final_logit_softcapping", "0"), malformed,
        "final_logit_softcapping")
REFUSES(config, "attention in both directions", of_family("gemma3_text", "use_bidirectional_attention", "true"),
        unsupported, "use_bidirectional_attention: expected false")
REFUSES(config, "a window of less than one", of_family("gemma2", "sliding_window", "-1"), malformed, "sliding_window")
REFUSES(config, "layers without experts among others", of_family("qwen3_moe", "mlp_only_layers", "[1]"), unsupported,
        "mlp_only_layers: expected no layers")
REFUSES(config, "experts in every other layer", of_family("qwen3_moe", "decoder_sparse_step", "2"), unsupported,
        "decoder_sparse_step")
REFUSES(config, "more experts for a token than there are", of_family("qwen3_moe", "num_experts_per_tok", "5"),
        malformed, "num_experts_per_tok: expected an integer from 1 to 4")
REFUSES(config, "factors for fewer frequencies", of_family("phi3", "rope_scaling.long_factor", "[1, 2]"), mismatch,
        "long_factor: expected 8 factors, found 2")
REFUSES(config, "a factor of zero", of_family("phi3", "rope_scaling.short_factor", "[1,1,1,1,1,1,1,0]"), malformed,
        "rope_scaling.short_factor[7]")
REFUSES(config, "a part of a head that is odd", of_family("phi3", "partial_rotary_factor", "0.2"), mismatch,
        "partial_rotary_factor: expected an even number of elements of a head, found 3 of 16")
REFUSES(config, "rope for fewer layers", of_family("smollm3", "no_rope_layers", "[1]"), mismatch,
        "no_rope_layers: expected a number for each of 2 layers")
REFUSES(
    config, "a family's default of key heads, which is its own",
    [] {
      finteam::Json json = finteam::parse_json(of_family("qwen3", "bos_token_id", "1"), "good");
      json.erase("num_key_value_heads");
      return json.dump();
    }(),
    not_found, "num_key_value_heads")

TEST_CASE("Every file in tests/refused is refused, by its kind, at once", "[file][law5][refused]") {
  std::size_t count = 0;
  for (const auto& file : std::filesystem::directory_iterator(std::filesystem::path(FINTEAM_TEST_DATA) / "refused")) {
    const std::string name = file.path().filename().string();
    const bool tensors = name.ends_with(".safetensors");
    const bool config = name.starts_with("config_"), json = name.starts_with("json_");
    if (!tensors && !config && !json) continue;  // another test's, beside what reads it
    INFO(name);
    ++count;
    const auto start = std::chrono::steady_clock::now();
    if (tensors) {
      CHECK_THROWS_AS(finteam::Safetensors::open(file.path()), finteam::Error);
    } else if (config) {
      CHECK_THROWS_AS(finteam::parse_config(finteam::read_text_file(file.path(), 1 << 20), name), finteam::Error);
    } else {
      CHECK_THROWS_AS(finteam::JsonFile::open(file.path()), finteam::Error);
    }
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(5));
  }
  CHECK(count >= 60);
}
