// A chat template's text made comparable: the same template however it is laid out. Jinja is read as far as blocks,
// strings and white space go, and never run. Not here: which family it is (chat_recognition.hpp).
#pragma once

#include <finteam/core/config.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// A template without its layout.
struct TemplateText {
  /// The blocks, without white space and minus signs beside their braces; strings in single quotes, their newlines as
  /// \n; x.role, x.content and x.strip() as x['role'], x['content'] and x|trim.
  std::string code;
  /// What stands outside blocks and is written as it stands, once Jinja has trimmed it (trim_blocks, lstrip_blocks, as
  /// transformers sets them), with a zero byte after each piece.
  std::string raw;
};

/// Reads a template; text that Jinja would refuse gives something that no family's marks are in.
/// Source: Jinja's documentation, "Whitespace Control"; transformers, utils/chat_template_utils.py.
class TemplateReader {
 public:
  [[nodiscard]] static TemplateText read(std::string_view text) {
    TemplateReader reader(text);
    while (reader.at_ < text.size()) reader.step();
    return std::move(reader.out_);
  }

 private:
  enum class After : unsigned char { text, expression, statement, minus };  // what stood before some raw text

  explicit TemplateReader(std::string_view text) : text_(text) {
    if (text_.ends_with('\n')) text_.remove_suffix(1);  // as Jinja, which keeps no newline at the end
  }

  void step() {
    if (at_ >= text_.size()) {
      at_ = static_cast<std::size_t>(-1);
      return;
    }
    std::size_t open = at_;
    while (open < text_.size() && !(text_[open] == '{' && open + 1 < text_.size() && is_kind(text_[open + 1]))) ++open;
    raw(text_.substr(at_, open - at_), open);
    if (open == text_.size()) {
      at_ = static_cast<std::size_t>(-1);
      return;
    }
    const char kind = text_[open + 1];
    at_ = open + 2;
    if (at_ < text_.size() && (text_[at_] == '-' || text_[at_] == '+')) ++at_;
    if (kind == '#') {
      const std::size_t close = text_.find("#}", at_);
      after_ = close != std::string_view::npos && text_[close - 1] == '-' ? After::minus : After::statement;
      at_ = close == std::string_view::npos ? close : close + 2;
    } else {
      block(kind);
    }
  }

  static bool is_kind(char c) noexcept { return c == '{' || c == '%' || c == '#'; }
  static bool is_blank(char c) noexcept { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
  static bool is_word(char c) noexcept {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  }

  /// Text between two blocks; the next one opens at `open`, or there is none.
  void raw(std::string_view text, std::size_t open) {
    if (after_ == After::minus) {
      while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
    } else if (after_ == After::statement && text.starts_with('\n')) {
      text.remove_prefix(1);
    }
    if (open + 2 < text_.size() && text_[open + 2] == '-') {
      while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
    } else if (open < text_.size() && text_[open + 1] != '{') {
      std::string_view line = text;
      while (!line.empty() && (line.back() == ' ' || line.back() == '\t')) line.remove_suffix(1);
      if (line.ends_with('\n') || (line.empty() && (after_ == After::statement || at_ == 0))) text = line;
    }
    if (!text.empty()) (out_.raw += text) += '\0';
  }

  /// A block from after its opening brace to after its closing one.
  void block(char kind) {
    out_.code += kind == '{' ? "{{" : "{%";
    const char closing = kind == '{' ? '}' : '%';
    while (at_ < text_.size()) {
      const char c = text_[at_];
      const std::size_t sign = c == '-' || c == '+' ? 1 : 0;
      if (at_ + sign + 1 < text_.size() && text_[at_ + sign] == closing && text_[at_ + sign + 1] == '}') {
        out_.code += kind == '{' ? "}}" : "%}";
        after_ = c == '-' ? After::minus : kind == '{' ? After::expression : After::statement;
        at_ += sign + 2;
        return;
      }
      if (c == '\'' || c == '"') {
        string(c);
      } else if (is_blank(c)) {
        const char before = at_ != 0 ? text_[at_ - 1] : ' ';
        while (at_ < text_.size() && is_blank(text_[at_])) ++at_;
        if (at_ < text_.size() && is_word(before) && is_word(text_[at_])) out_.code += ' ';  // two words
      } else if (text_.substr(at_).starts_with(".strip()")) {                                // the same, as a filter
        out_.code += "|trim";
        at_ += 8;
      } else if (!member("role") && !member("content")) {
        out_.code += c;
        ++at_;
      }
    }
  }

  void string(char quote) {
    out_.code += '\'';
    for (++at_; at_ < text_.size() && text_[at_] != quote; ++at_) {
      if (text_[at_] == '\\' && at_ + 1 < text_.size()) out_.code += text_[at_++];
      if (text_[at_] == '\n') {
        out_.code += "\\n";
      } else {
        out_.code += text_[at_];
      }
    }
    out_.code += '\'';
    ++at_;
  }

  /// Writes .name as ['name'], if that is what comes next.
  bool member(std::string_view name) {
    const std::string_view rest = text_.substr(at_);
    const bool here = rest.starts_with('.') && rest.substr(1).starts_with(name) &&
                      (rest.size() == name.size() + 1 || !is_word(rest[name.size() + 1]));
    if (here) {
      ((out_.code += "['") += name) += "']";
      at_ += name.size() + 1;
    }
    return here;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  After after_ = After::text;
  TemplateText out_;
};

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
