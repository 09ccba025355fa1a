// A tokenizer.json pattern (Oniguruma, Ruby syntax) as a PCRE2 pattern that matches the same, or a refusal.
// Only what both engines read alike is let through; `\s` is the exception that is translated.
#pragma once

#include <finteam/core/error.hpp>
#include <finteam/file/quoted.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// Reads a pattern once, left to right, and writes its translation.
class PatternTranslator {
 public:
  PatternTranslator(std::string_view pattern, const std::string& where) : in_(pattern), where_(where) {}

  /// Throws Error(unsupported) for a construct that the engines read differently, Error(malformed) for a cut one.
  std::string run() {
    while (at_ < in_.size()) {
      switch (in_[at_]) {
        case '\\': escape(); break;
        case '[': character_class(); break;
        case '(': group(); break;
        case '{': interval(); break;
        case '^':
        case '$': line(); break;
        case ')': close(); break;
        case '*':
        case '+':
        case '?':
        case '|': copy(1); break;
        default:
          if ((static_cast<unsigned char>(in_[at_]) & 0xC0) != 0x80) atom();
          copy(1);
      }
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(std::size_t length) const {
    throw Error(Code::unsupported, where_, "a construct that this build reads",
                detail::in_quotes(in_.substr(at_, length)) + " at byte " + std::to_string(at_));
  }
  [[noreturn]] void cut() const { throw Error(Code::malformed, where_, "a whole pattern", "one that ends too early"); }

  [[nodiscard]] bool starts(std::string_view s) const { return in_.substr(at_).starts_with(s); }
  void copy(std::size_t n) {
    out_ += in_.substr(at_, n);
    at_ += n;
  }

  /// What a repeat repeats begins here.
  void atom() { atom_ = out_.size(); }

  /// Of a line always, in Ruby's syntax.
  void line() {
    atom();
    out_ += "(?m:" + std::string(1, in_[at_++]) + ")";
  }
  void close() {
    if (!groups_.empty()) {  // or PCRE2 says what is wrong
      atom_ = groups_.back();
      groups_.pop_back();
    }
    copy(1);
  }

  /// PCRE2's `\s` matches U+180E, which is not White_Space; `\w`, `\b`, `\h` and others mean other things in Oniguruma.
  void escape() {
    if (at_ + 1 >= in_.size()) cut();
    if (!in_class_) atom();
    const char c = in_[at_ + 1];
    if (c == 's' || c == 'S') {
      out_ += c == 's' ? "\\p{White_Space}" : "\\P{White_Space}";
      at_ += 2;
    } else if (c == 'w' || (c == 'W' && !in_class_)) {
      // Oniguruma's, whose table of Latin-1 counts fractions and superscripts.
      static constexpr std::string_view word = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\xB2\\xB3\\xB9\\xBC-\\xBE";
      out_ += in_class_ ? std::string(word) : (c == 'w' ? "[" : "[^") + std::string(word) + "]";
      at_ += 2;
    } else if (c == 'p' || c == 'P') {
      property();
    } else if (c == 'x') {
      hexadecimal();
    } else if (c == 'u') {
      unicode();
    } else if (std::string_view("dDrntf").find(c) != std::string_view::npos || is_punctuation(c)) {
      copy(2);
    } else {
      refuse(2);
    }
  }

  /// `\p{L}`, `\p{Han}`: general categories, Alphabetic, and scripts, which PCRE2 would take for Script_Extensions.
  void property() {
    static constexpr std::string_view same =
        " C Cc Cf Cn Co Cs L Ll Lm Lo Lt Lu M Mc Me Mn N Nd Nl No P Pc Pd Pe Pf Pi Po Ps S Sc Sk Sm So Z Zl Zp Zs "
        "Alphabetic ";
    static constexpr std::string_view scripts =
        " Arabic Armenian Bengali Cyrillic Devanagari Ethiopic Georgian Greek Gujarati Gurmukhi Han Hangul Hebrew "
        "Hiragana Kannada Katakana Khmer Lao Latin Malayalam Mongolian Myanmar Sinhala Tamil Telugu Thai Tibetan ";
    const std::size_t end = in_.find('}', at_);
    if (end == std::string_view::npos) cut();
    if (!in_.substr(at_ + 2).starts_with('{')) refuse(3);
    const std::string name(in_.substr(at_ + 3, end - at_ - 3));
    const bool plain = !name.empty() && name.find(' ') == std::string::npos;
    const bool script = plain && scripts.find(" " + name + " ") != std::string_view::npos;
    if (!script && (!plain || same.find(" " + name + " ") == std::string_view::npos)) refuse(end + 1 - at_);
    out_ += std::string(in_.substr(at_, 3)) + (script ? "sc:" : "") + name + "}";
    at_ = end + 1;
  }

  /// `\x41` and `\x{1F600}`; `\xE9` would be a lone byte in Oniguruma.
  void hexadecimal() {
    if (in_.substr(at_ + 2).starts_with('{')) {
      const std::size_t end = in_.find('}', at_);
      if (end == std::string_view::npos) cut();
      const std::string_view digits = in_.substr(at_ + 3, end - at_ - 3);
      if (digits.empty() || digits.size() > 6 || !std::all_of(digits.begin(), digits.end(), is_hex)) refuse(3);
      copy(end + 1 - at_);
      return;
    }
    const std::string_view digits = in_.substr(at_ + 2, 2);
    if (digits.size() != 2 || !is_hex(digits[0]) || !is_hex(digits[1]) || digits[0] > '7') refuse(2 + digits.size());
    copy(4);
  }

  void unicode() {
    const std::string_view digits = in_.substr(at_ + 2, 4);
    if (digits.size() != 4 || !std::all_of(digits.begin(), digits.end(), is_hex)) refuse(2 + digits.size());
    out_ += "\\x{" + std::string(digits) + "}";
    at_ += 6;
  }

  /// No intersection, no `]` as the first member: each is read differently. A class within one joins it.
  void character_class() {
    atom();
    copy(1);
    if (starts("^")) copy(1);
    if (starts("]")) refuse(1);
    in_class_ = true;
    for (int depth = 1; depth > 0;) {
      if (at_ >= in_.size()) cut();
      if (starts("&&") || starts("[^") || starts("[:") || starts("[]") || starts("-[")) refuse(2);
      if (starts("[")) {
        ++depth, ++at_;
      } else if (starts("]")) {
        if (--depth == 0) break;
        ++at_;
        if (starts("-")) refuse(1);
      } else if (starts("\\")) {
        escape();
      } else {
        copy(1);
      }
    }
    in_class_ = false;
    copy(1);
  }

  void group() {
    static constexpr std::array<std::string_view, 8> openers = {
        "(?:", "(?i:", "(?-i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    groups_.push_back(out_.size());
    for (const std::string_view opener : openers) {
      if (starts(opener)) return copy(opener.size());
    }
    if (starts("(?") || starts("(*")) refuse(3);
    copy(1);
  }

  /// `{n}`, `{n,}`, `{n,m}`. With `+` behind it PCRE2 would take it for possessive; Oniguruma repeats it. No other
  /// suffix.
  void interval() {
    const std::size_t end = in_.find('}', at_);
    if (end == std::string_view::npos) cut();
    std::string_view body = in_.substr(at_ + 1, end - at_ - 1);
    const auto digits = [&body] {
      std::size_t n = 0;
      while (n < body.size() && body[n] >= '0' && body[n] <= '9') ++n;
      body.remove_prefix(n);
      return n;
    };
    const bool first = digits() != 0;
    if (body.starts_with(',')) {
      body.remove_prefix(1);
      digits();
    }
    const auto is_suffix = [&](std::size_t at) {
      return at < in_.size() && std::string_view("+?*{").find(in_[at]) != std::string_view::npos;
    };
    const bool repeats = in_.substr(end + 1, 1) == "+";
    const bool other = is_suffix(end + (repeats ? 2 : 1));
    if (!first || !body.empty() || other) refuse(end + (other ? 2 : 1) - at_);
    if (repeats) out_.insert(atom_, "(?:");
    copy(end + 1 - at_);
    if (repeats) {
      out_ += ")+";
      ++at_;
    }
  }

  static bool is_hex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }
  static bool is_punctuation(char c) {
    return c > ' ' && c < 0x7F && !(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') &&
           c != '<' && c != '>' && c != '`' && c != '\'';
  }

  std::string_view in_;
  const std::string& where_;
  std::size_t at_ = 0;
  bool in_class_ = false;
  std::string out_;
  std::size_t atom_ = 0;             // where what a repeat repeats begins, in out_
  std::vector<std::size_t> groups_;  // where the open groups begin
};

}  // namespace detail

/// The pattern in PCRE2's syntax (UTF and UCP on). Throws Error(unsupported) for what is not known to mean the same in
/// both engines, Error(malformed) for a pattern that ends too early.
[[nodiscard]] inline std::string pcre2_syntax(std::string_view pattern, const std::string& where) {
  return detail::PatternTranslator(pattern, where).run();
}

}  // namespace finteam::inline FINTEAM_ABI
