// Reads the decoder of a tokenizer.json. What is not understood is refused by its name.
#pragma once

#include <finteam/text/token_decoder.hpp>
#include <finteam/text/tokenizer_key.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace finteam::inline FINTEAM_ABI::detail {

/// Reads steps in order: first those on each token, then one that puts bytes together, then Fuse, then Strip.
class DecoderReader {
 public:
  void read(const JsonView& json) {
    const std::string& type =
        type_of(json, {"ByteLevel", "ByteFallback", "Fuse", "Replace", "Strip", "Metaspace", "WordPiece", "Sequence"});
    if (type == "Strip") return read_strip(json);
    if (type == "Fuse") {
      only_keys(json, {"type"});
      refuse_after(json, Stage::fused);
      stage_ = Stage::fused;
      return;
    }
    refuse_after(json, Stage::tokens);
    if (type == "ByteLevel") {
      only_keys(json, {"type", "add_prefix_space", "trim_offsets", "use_regex"});
      if (!rules_.steps.empty()) json.refuse("no step before ByteLevel", Code::unsupported);
      rules_.byte_level = true;
      stage_ = Stage::fused;
    } else if (type == "ByteFallback") {
      only_keys(json, {"type"});
      rules_.byte_fallback = true;
      stage_ = Stage::bytes;
    } else if (type == "Replace") {
      read_replace(json);
    } else if (type == "Metaspace") {
      read_metaspace(json);
    } else {
      only_keys(json, {"type", "prefix", "cleanup"});
      rules_.steps.emplace_back(token_decode::WordPiece{short_string(json.at("prefix")), json.at("cleanup").as_bool()});
    }
  }
  [[nodiscard]] TokenDecoderRules take() { return std::move(rules_); }

 private:
  enum class Stage : std::uint8_t { tokens, bytes, fused, stripped };

  void refuse_after(const JsonView& json, Stage last) const {
    if (stage_ > last) json.refuse("no such step after those before it", Code::unsupported);
  }
  void read_strip(const JsonView& json) {
    only_keys(json, {"type", "content", "start", "stop"});
    if (const JsonView stop = json.at("stop"); stop.as_int(0, 1 << 20) != 0) stop.refuse("0", Code::unsupported);
    token_decode::Strip strip{one_character(json.at("content")),
                              static_cast<std::size_t>(json.at("start").as_int(0, 1 << 20))};
    if (stage_ == Stage::bytes) json.refuse("Fuse between ByteFallback and Strip", Code::unsupported);
    if (stage_ == Stage::tokens) {
      rules_.steps.emplace_back(std::move(strip));
      return;
    }
    refuse_after(json, Stage::fused);
    rules_.text = std::move(strip);
    stage_ = Stage::stripped;
  }
  void read_replace(const JsonView& json) {
    only_keys(json, {"type", "pattern", "content"});
    const JsonView pattern = json.at("pattern");
    const std::string& content = json.at("content").as_string();
    only_keys(pattern, {"String", "Regex"});
    if (const auto regex = pattern.find("Regex")) {
      rules_.steps.emplace_back(token_decode::ReplacePattern{Pattern(regex->as_string(), regex->where()), content});
    } else {
      rules_.steps.emplace_back(token_decode::Replace{short_string(pattern.at("String")), content});
    }
  }
  void read_metaspace(const JsonView& json) {
    only_keys(json, {"type", "replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep"});
    const bool prepends =
        json.string_or("prepend_scheme", "always") != "never" && json.bool_or("add_prefix_space", true);
    rules_.steps.emplace_back(token_decode::Metaspace{one_character(json.at("replacement")), prepends});
  }

  TokenDecoderRules rules_;
  Stage stage_ = Stage::tokens;
};

[[nodiscard]] inline TokenDecoderRules read_decoder(const JsonView& json) {
  DecoderReader reader;
  each_step(json, "decoders", [&](const JsonView& step) { reader.read(step); });
  return reader.take();
}

}  // namespace finteam::inline FINTEAM_ABI::detail
