// What a config.json's quantization_config says of how linear layers are stored. Not here: their numbers
// (stored_rows.hpp), and what activations meet them: these stay float, whatever the config says of them.
#pragma once

#include <finteam/file/json_view.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace finteam::inline FINTEAM_ABI {

/// How a checkpoint stores its linear layers; those that it excepts are stored as ever.
struct Quantization {
  enum class Method : std::uint8_t {
    none,
    fp8,         ///< F8_E4M3, a scale for the tensor, for each row, or for each block
    mxfp4,       ///< experts only: FP4 (E2M1), a power of two for every 32 inputs
    gptq,        ///< 4 bits, a scale and a zero point for every group of inputs, which may be out of order
    awq,         ///< the same, groups in order, eight outputs to a word in an order of its own
    compressed,  ///< compressed-tensors: 4 bits in order (pack-quantized), or F8_E4M3 (float-quantized)
  };
  Method method = Method::none;
  index_t group = 0;               ///< inputs that share a scale in 4 bits; 0: all of a row
  std::array<index_t, 2> block{};  ///< rows and inputs that share a scale in fp8; 0: the tensor, or each row
  bool zero_plus_one = false;      ///< gptq: stored zero points are one too small

  friend bool operator==(const Quantization&, const Quantization&) = default;

  /// All that decides what numbers a file's bytes are.
  [[nodiscard]] std::string text() const {
    constexpr std::array<std::string_view, 6> names{"none", "fp8", "mxfp4", "gptq", "awq", "compressed"};
    return std::string(names[static_cast<std::size_t>(method)]) + ", group " + std::to_string(group) + ", block " +
           std::to_string(block[0]) + " x " + std::to_string(block[1]) + (zero_plus_one ? ", zero + 1" : "");
  }
};

namespace detail {

/// Throws Error(unsupported) unless `key` is absent or that number.
inline void must_be_number(const JsonView& json, std::string_view key, double only) {
  if (const auto x = json.find(key); x && x->as_number() != only) x->refuse(Json(only).dump(), Code::unsupported);
}

/// The inputs of a group: a number, -1 for all of a row.
[[nodiscard]] inline index_t read_group(const JsonView& size) {
  const auto group = static_cast<index_t>(size.as_int(-1, 1 << 20));
  if (group == 0) size.refuse("-1, or at least 1");
  return group < 0 ? 0 : group;
}

inline void read_block(const JsonView& block, Quantization& q) {
  if (block.size() != 2) block.refuse("two numbers");
  for (std::size_t i = 0; i < 2; ++i) q.block[i] = static_cast<index_t>(block[i].as_int(1, 1 << 20));
}

inline void read_fp8(const JsonView& json, Quantization& q) {
  q.method = Quantization::Method::fp8;
  if (const auto block = json.find("weight_block_size")) read_block(*block, q);
}

/// A word of the format, in whatever case: the first of these keys that is there.
[[nodiscard]] inline std::string read_format(const JsonView& json, std::initializer_list<std::string_view> keys,
                                             std::initializer_list<std::string_view> known) {
  for (const std::string_view key : keys) {
    const auto value = json.find(key);
    if (!value) continue;
    std::string word = value->as_string();
    for (char& c : word) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    if (std::find(known.begin(), known.end(), word) != known.end()) return word;
    value->refuse(in_quotes(*known.begin()), Code::unsupported);
  }
  return std::string(*known.begin());
}

inline void read_gptq(const JsonView& json, Quantization& q) {
  q.method = Quantization::Method::gptq;
  must_be_number(json, "bits", 4);
  q.group = read_group(json.at("group_size"));
  q.zero_plus_one = read_format(json, {"checkpoint_format", "format"}, {"gptq", "gptq_v2"}) == "gptq";
  if (const auto other = json.find("dynamic"); other && !other->json().empty()) {
    other->refuse("the same for all layers", Code::unsupported);
  }
}

inline void read_awq(const JsonView& json, Quantization& q) {
  q.method = Quantization::Method::awq;
  must_be_number(json, "bits", 4);
  q.group = read_group(json.at("group_size"));
  static_cast<void>(read_format(json, {"version", "format"}, {"gemm"}));
}

/// One group of layers, all with the same weights; what it says of activations is passed over.
inline void read_compressed(const JsonView& json, Quantization& q) {
  q.method = Quantization::Method::compressed;
  const std::string format = json.at("format").as_string();
  if (format != "pack-quantized" && format != "float-quantized") {
    json.at("format").refuse("\"pack-quantized\" or \"float-quantized\"", Code::unsupported);
  }
  if (const auto turned = json.find("transform_config"); turned && !turned->json().empty()) {
    turned->refuse("none", Code::unsupported);
  }
  const JsonView groups = json.at("config_groups");
  if (groups.json().size() != 1) groups.refuse("one group", Code::unsupported);
  groups.each_member([&](std::string_view, const JsonView& group) {
    const JsonView weights = group.at("weights");
    const bool packed = format == "pack-quantized";
    must_be_number(weights, "num_bits", packed ? 4 : 8);
    const std::string kind = weights.string_or("type", packed ? "int" : "float");
    if (kind != (packed ? "int" : "float"))
      weights.at("type").refuse(packed ? "\"int\"" : "\"float\"", Code::unsupported);
    if (const auto size = weights.find("group_size")) q.group = read_group(*size);
    if (const auto order = weights.find("actorder"); order && order->json() != Json(false)) {
      const bool in_order = order->is_string() && (order->as_string() == "static" || order->as_string() == "weight");
      if (!in_order) order->refuse("null, \"static\" or \"weight\"", Code::unsupported);
    }
    if (const auto block = weights.find("block_structure")) read_block(*block, q);
  });
}

}  // namespace detail

/// Reads a quantization_config. Throws Error(unsupported) for a method that this build does not have, by its name.
[[nodiscard]] inline Quantization read_quantization(const JsonView& json) {
  Quantization q;
  const JsonView method = json.at("quant_method");
  const std::string& name = method.as_string();
  if (name == "fp8") {
    detail::read_fp8(json, q);
  } else if (name == "mxfp4") {
    q.method = Quantization::Method::mxfp4;
  } else if (name == "gptq") {
    detail::read_gptq(json, q);
  } else if (name == "awq") {
    detail::read_awq(json, q);
  } else if (name == "compressed-tensors") {
    detail::read_compressed(json, q);
  } else {
    method.refuse("fp8, mxfp4, gptq, awq or compressed-tensors", Code::unsupported);
  }
  return q;
}

}  // namespace finteam::inline FINTEAM_ABI
