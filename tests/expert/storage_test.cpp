// What a checkpoint may be stored as, besides parity: packed weights, threads, formats in memory, and what is refused.

#include "expert/parity.hpp"
#include "file/support.hpp"
#include "refusals.hpp"

#include <finteam/backend/thread_pool.hpp>
#include <finteam/file/safetensors_writer.hpp>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

using namespace finteam;
using parity::last_logits;

namespace {

/// A golden's tensors as bytes, to be changed and written anew.
struct StoredFolder {
  struct Entry {
    std::string type;
    std::vector<index_t> shape;
    std::string bytes;
  };
  std::map<std::string, Entry> tensors;
  Json config;
  test::Folder folder;

  explicit StoredFolder(const std::string& name) {
    const auto path = test::golden_folder(name);
    config = parse_json(read_text_file(path / "config.json", 1 << 20), name);
    const auto file = Safetensors::open(path / "model.safetensors");
    for (const std::string_view tensor : file.names()) {
      const auto stored = file.stored(tensor);
      tensors[std::string(tensor)] = {
          std::string(stored->type),
          {stored->shape.begin(), stored->shape.end()},
          std::string(reinterpret_cast<const char*>(stored->bytes.data()), stored->bytes.size())};
    }
  }

  void open() const {
    std::vector<TensorEntry> entries;
    std::string data;
    for (const auto& [name, t] : tensors) {
      entries.push_back({name, t.type, t.shape});
      data += t.bytes;
    }
    (void)folder.write("model.safetensors", safetensors_header(std::span<const TensorEntry>(entries)) + data);
    (void)folder.write("config.json", config.dump());
    const Config c = read_config(folder.path());
    Cpu b;
    (void)Decoder<Cpu>::load(b, Checkpoint::open(folder.path()), c);
  }
};

/// The opened folder's refusal after a change.
template <class Change>
void refuses(const std::string& golden, Change&& change, Code code, const std::string& says) {
  CAPTURE(golden, says);
  StoredFolder folder(golden);
  change(folder);
  test::check_refused([&] { folder.open(); }, code, says);
}

const std::string q_proj = "model.layers.0.self_attn.q_proj.";
const std::string experts = "model.layers.0.mlp.experts.";

}  // namespace

TEST_CASE("a mapped file of packed weights gives the bits of the checkpoint, whatever that is stored as", "[expert]") {
  const auto name = GENERATE(as<std::string>{}, "gptq", "awq", "compressed", "fp8", "fp8_rows", "gpt_oss",
                             "gpt_oss_plain", "phi3", "gemma2", "qwen2", "qwen3_moe", "olmo2");
  const Weights weights = GENERATE(Weights::stored, Weights::int8, Weights::int4);
  CAPTURE(name, finteam::name(weights));
  const test::Golden golden(name);
  const test::Folder packed;
  const OpenOptions options{.weights = weights};
  OpenOptions mapped = options;
  mapped.packed = packed.path();
  const auto direct = last_logits(golden, options);
  CHECK(last_logits(golden, mapped) == direct);
  CHECK(last_logits(golden, mapped) == direct);  // now it is there
}

TEST_CASE("threads decode a checkpoint's own storage into the same bits", "[expert]") {
  const auto name = GENERATE(as<std::string>{}, "gptq", "fp8", "gpt_oss");
  CAPTURE(name);
  const test::Golden golden(name);
  ThreadPool pool(3);
  CHECK(last_logits(golden, {}, Cpu(pool)) == last_logits(golden, {}));
}

TEST_CASE("MXFP4 experts stay exact in bf16, the other storages in float", "[expert]") {
  const auto formats = [](const std::string& name, std::string_view part) {
    const test::Golden golden(name);
    std::map<Format, int> all;
    for (const SourceWeight& w : find_weights(golden.checkpoint, golden.config, {})) {
      if (!w.is_vector() && w.name().find(part) != std::string::npos) ++all[w.panels().format()];
    }
    return all;
  };
  CHECK(formats("gpt_oss", ".experts.") == std::map<Format, int>{{Format::bf16_wide, 16}});
  CHECK(formats("gptq", "_proj") == std::map<Format, int>{{Format::f32, 8}});
}

TEST_CASE("loading counts the bytes that a checkpoint has, each once", "[expert]") {
  for (const std::string name : {"gptq", "fp8_rows", "gpt_oss", "gpt_oss_plain", "phi3", "llama_bias"}) {
    CAPTURE(name);
    const test::Golden golden(name);
    std::uint64_t sum = 0;
    for (const SourceWeight& w : find_weights(golden.checkpoint, golden.config, {})) sum += w.source_bytes;
    CHECK(sum == golden.checkpoint.bytes());
  }
}

TEST_CASE("storage that is not what config.json says, or not whole, is refused by the tensor's name",
          "[expert][law5][refused]") {
  refuses(
      "fp8", [](StoredFolder& f) { f.config.erase("quantization_config"); }, Code::unsupported, "F8_E4M3");
  refuses(
      "fp8", [](StoredFolder& f) { f.tensors.erase(q_proj + "weight_scale_inv"); }, Code::not_found,
      q_proj + "weight_scale");
  refuses(
      "fp8",
      [](StoredFolder& f) {
        f.config["quantization_config"]["weight_block_size"] = {64, 64};
      },
      Code::mismatch, "weight_scale_inv: expected [");
  refuses(
      "fp8_rows", [](StoredFolder& f) { f.tensors[q_proj + "weight"].type = "I8"; }, Code::unsupported, "I8");
  refuses(
      "gptq", [](StoredFolder& f) { f.tensors.erase(q_proj + "qzeros"); }, Code::not_found, q_proj + "qzeros");
  refuses(
      "gptq", [](StoredFolder& f) { f.tensors[q_proj + "g_idx"].bytes[7] = 1; }, Code::malformed,
      "g_idx: expected groups from 0 to 1");
  refuses(
      "gptq",
      [](StoredFolder& f) {
        std::swap(f.tensors[q_proj + "qweight"].shape[0], f.tensors[q_proj + "qweight"].shape[1]);
      },
      Code::mismatch, q_proj + "qweight: expected I32 [8, 64], found I32 [64, 8]");
  refuses(
      "gptq", [](StoredFolder& f) { f.tensors[q_proj + "weight_more"] = f.tensors[q_proj + "qzeros"]; },
      Code::unsupported, "an extra tensor");
  refuses(
      "awq", [](StoredFolder& f) { f.tensors[q_proj + "qzeros"].type = "U32"; }, Code::mismatch, q_proj + "qzeros");
  refuses(
      "awq", [](StoredFolder& f) { f.config["quantization_config"]["quant_method"] = "gptq"; }, Code::mismatch,
      "qweight: expected I32");
  refuses(
      "compressed",
      [](StoredFolder& f) {
        f.config["quantization_config"]["config_groups"]["group_0"]["weights"]["group_size"] = 64;
      },
      Code::mismatch, "weight_scale: expected [");
  refuses(
      "compressed", [](StoredFolder& f) { f.tensors[q_proj + "weight_g_idx"] = f.tensors[q_proj + "weight_shape"]; },
      Code::unsupported, "weight_g_idx");
  refuses(
      "gpt_oss", [](StoredFolder& f) { f.tensors.erase(experts + "down_proj_scales"); }, Code::not_found,
      experts + "down_proj_scales");
  refuses(
      "gpt_oss", [](StoredFolder& f) { f.config["quantization_config"].erase("quant_method"); }, Code::not_found,
      "quantization_config: expected key \"quant_method\"");
  refuses(
      "gpt_oss", [](StoredFolder& f) { f.config.erase("quantization_config"); }, Code::not_found,
      experts + "gate_up_proj");
}

TEST_CASE("biases of zeros beside four-bit integers, and scales of activations, change nothing", "[expert]") {
  StoredFolder zeros("gptq");
  zeros.tensors[q_proj + "bias"] = {"F16", {64}, std::string(128, '\0')};
  CHECK_NOTHROW(zeros.open());
  zeros.tensors[q_proj + "bias"].bytes[100] = 1;
  test::check_refused([&] { zeros.open(); }, Code::unsupported, q_proj + "bias");
  StoredFolder scaled("fp8_rows");
  scaled.tensors[q_proj + "input_scale"] = {"F32", {1}, std::string("\0\0\x80\x3F", 4)};
  CHECK_NOTHROW(scaled.open());
  scaled.tensors["model.layers.1.self_attn.k_scale"] = scaled.tensors[q_proj + "input_scale"];
  CHECK_NOTHROW(scaled.open());
  scaled.tensors[q_proj + "input_scale"] = {"F32", {2}, std::string(8, '\1')};
  test::check_refused([&] { scaled.open(); }, Code::unsupported, "input_scale");
}

TEST_CASE("words of a quantization_config mean the same in other keys and cases", "[expert]") {
  const auto read = [](const char* text) { return read_quantization(JsonView(parse_json(text, "q"), "q")); };
  CHECK(read(R"({"quant_method":"gptq","bits":4,"group_size":-1})").zero_plus_one);
  CHECK(!read(R"({"quant_method":"gptq","bits":4,"group_size":-1,"format":"GPTQ_v2"})").zero_plus_one);
  CHECK(read(R"({"quant_method":"gptq","bits":4,"group_size":8,"checkpoint_format":"gptq","format":"gptq_v2"})")
            .zero_plus_one);
  CHECK(read(R"({"quant_method":"awq","bits":4,"group_size":128,"version":"GEMM"})").group == 128);
  CHECK(read(R"({"quant_method":"compressed-tensors","format":"pack-quantized","config_groups":{"a":{"weights":
      {"num_bits":4,"type":"int","group_size":128,"actorder":"weight"}}}})")
            .group == 128);
  CHECK(read(R"({"quant_method":"compressed-tensors","format":"float-quantized","config_groups":{"a":{"weights":
      {"num_bits":8,"type":"float","strategy":"block","block_structure":[128,64]}}}})")
            .block == std::array<index_t, 2>{128, 64});
}

TEST_CASE("packed weights of another reading of the same bytes are made anew", "[expert]") {
  const test::Folder packed;
  const test::Golden golden("gptq");
  const auto first = last_logits(golden, {.packed = packed.path()});
  test::Golden other("gptq");
  other.config.quantization.zero_plus_one = false;
  CHECK(last_logits(other, {.packed = packed.path()}) != first);
  CHECK(last_logits(golden, {.packed = packed.path()}) == first);
}

TEST_CASE("a method of storage that this build does not have is refused by its name", "[expert][law5][refused]") {
  const auto key = [](const std::string& golden, const char* name, const Json& value, const std::string& says) {
    refuses(
        golden, [&](StoredFolder& f) { f.config["quantization_config"][name] = value; }, Code::unsupported, says);
  };
  key("gptq", "quant_method", "bitsandbytes",
      "quant_method: expected fp8, mxfp4, gptq, awq or compressed-tensors, found \"bitsandbytes\"");
  key("gptq", "bits", 8, "bits: expected 4");
  key("gptq", "checkpoint_format", "marlin", "checkpoint_format");
  key("awq", "bits", 3, "bits: expected 4");
  key("awq", "version", "gemv", "version");
  key("compressed", "format", "int-quantized", "format");
  key("gptq", "dynamic", {{"layers.0", {{"bits", 8}}}}, "dynamic");
  key("compressed", "transform_config", {{"config_groups", 1}}, "transform_config");
  refuses(
      "compressed",
      [](StoredFolder& f) {
        f.config["quantization_config"]["config_groups"]["more"] =
            f.config["quantization_config"]["config_groups"]["group_0"];
      },
      Code::unsupported, "config_groups: expected one group");
}

TEST_CASE("a number that is not one in FP8 or MXFP4 is NaN, and reaches the answer", "[expert]") {
  CHECK(std::isnan(e4m3_to_float(0x7F)));
  CHECK(std::isnan(e4m3_to_float(0xFF)));
  CHECK(e4m3_to_float(0x7E) == 448);
  CHECK(e4m3_to_float(0x01) == 0x1p-9F);
  CHECK(e4m3_to_float(0x88) == -0x1p-6F);
  CHECK(e4m3_to_float(0x38) == 1);
}

TEST_CASE("weights in 8 and in 4 bits keep each family's logits within their share", "[parity]") {
  // Of the last row of a prompt.
  const auto share = [](const test::Golden& golden, Weights weights) {
    double error = 0, size = 0;
    Cpu b;
    const auto expected = golden.floats("prompt_1.logits");
    const auto found = last_logits(golden, {.weights = weights}, b);
    const std::size_t first = expected.size() - found.size();
    for (std::size_t i = 0; i < found.size(); ++i) {
      const double x = static_cast<double>(expected[first + i]), y = static_cast<double>(found[i]);
      error += (x - y) * (x - y);
      size += x * x;
    }
    return std::sqrt(error / size);
  };
  for (const std::string name : {"llama3", "mistral", "phi3", "qwen2", "qwen3", "gemma2", "gemma3", "smollm3", "olmo2",
                                 "qwen3_moe", "gpt_oss"}) {
    CAPTURE(name);
    const test::Golden golden(name);
    CHECK(share(golden, Weights::int8) < tolerance::int8_share);
    CHECK(share(golden, Weights::int4) < tolerance::int4_share);
  }
}
