// What a tokenizer does to a text before it is cut: a list of steps, each a struct, in order.
// Not here: reading them from a file (normalizer_json.hpp).
#pragma once

#include <finteam/text/charsmap.hpp>
#include <finteam/text/normal_form.hpp>
#include <finteam/text/pattern.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace finteam::inline FINTEAM_ABI {
namespace normalize {

/// Puts `what` before a text that is not empty.
struct Prepend {
  std::string what;
};
/// Every `from`, which is not empty, becomes `to`.
struct Replace {
  std::string from, to;
};
/// Every match becomes `to`.
struct ReplacePattern {
  Pattern pattern;
  std::string to;
};
/// Removes white space at the ends.
struct Strip {
  bool left, right;
};
struct Lowercase {};
/// Removes combining marks: all, or nonspacing ones only.
struct RemoveMarks {
  bool nonspacing;
};
/// BERT's cleaning: without controls, every white space a blank.
struct Clean {};
/// BERT's blanks around Chinese characters.
struct SpaceChinese {};

}  // namespace normalize

using NormalizerStep = std::variant<NormalForm, Charsmap, normalize::Prepend, normalize::Replace,
                                    normalize::ReplacePattern, normalize::Strip, normalize::Lowercase,
                                    normalize::RemoveMarks, normalize::Clean, normalize::SpaceChinese>;

/// Immutable.
class Normalizer {
 public:
  Normalizer() = default;
  explicit Normalizer(std::vector<NormalizerStep> steps) : steps_(std::move(steps)) {}

  [[nodiscard]] bool empty() const noexcept { return steps_.empty(); }

  /// All memory that texts need which become no longer than max_bytes at any step, for one thread at a time.
  class Scratch {
   public:
    Scratch(const Normalizer& normalizer, std::size_t max_bytes)
        : from_(normalizer.steps_.size() > 1 ? max_bytes : 0), to_(normalizer.empty() ? 0 : max_bytes) {
      for (const NormalizerStep& step : normalizer.steps_) {
        // a mark has at least two bytes
        if (std::holds_alternative<NormalForm>(step)) marks_.reserve(max_bytes / 2);
      }
    }

   private:
    friend class Normalizer;
    detail::TextBuffer from_, to_;
    detail::NormalFormWriter::Marks marks_;
  };

  /// The normalised text; lives in the scratch until the next call, or is `text`. Throws Error(limit_exceeded) for one
  /// that grows too long, or beyond a pattern's limits (steps_left is the budget that all searches share).
  [[nodiscard]] std::string_view apply(std::string_view text, Scratch& scratch, Pattern::Scratch& patterns,
                                       std::uint64_t& steps_left) const {
    for (const NormalizerStep& step : steps_) {
      if (&step != steps_.data()) std::swap(scratch.from_, scratch.to_);  // the text stays where it is
      scratch.to_.clear();
      std::visit([&](const auto& s) { run(s, text, Run{scratch, patterns, steps_left}); }, step);
      text = scratch.to_.view();
    }
    return text;
  }

 private:
  struct Run {
    Scratch& scratch;
    Pattern::Scratch& patterns;
    std::uint64_t& steps_left;
    [[nodiscard]] detail::TextBuffer& out() const noexcept { return scratch.to_; }
  };
  template <class F>
  static void each(std::string_view text, F&& f) {
    for (std::size_t at = 0, n = 0; at < text.size(); at += n) {
      n = detail::utf8_length(text[at]);
      f(detail::utf8_decode(text.substr(at, n)), text.substr(at, n));
    }
  }

  static void run(NormalForm form, std::string_view text, const Run& r) {
    detail::NormalFormWriter(form, r.scratch.marks_, r.out()).write(text);
  }
  static void run(const Charsmap& map, std::string_view text, const Run& r) { map.apply(text, r.out()); }
  static void run(const normalize::Prepend& s, std::string_view text, const Run& r) {
    if (!text.empty()) r.out().append(s.what);
    r.out().append(text);
  }
  static void run(const normalize::Replace& s, std::string_view text, const Run& r) {
    for (std::size_t at = 0;;) {
      const std::size_t end = text.find(s.from, at);
      r.out().append(text.substr(at, end - at));
      if (end == std::string_view::npos) return;
      r.out().append(s.to);
      at = end + s.from.size();
    }
  }
  static void run(const normalize::ReplacePattern& s, std::string_view text, const Run& r) {
    Pattern::Search search(s.pattern, r.patterns, text, r.steps_left);
    std::size_t at = 0;
    while (search.next()) {
      r.out().append(text.substr(at, search.begin() - at));
      r.out().append(s.to);
      at = search.end();
    }
    r.out().append(text.substr(at));
  }
  static void run(const normalize::Strip& s, std::string_view text, const Run& r) {
    while (s.left && !text.empty() && detail::is_white_space(detail::utf8_first(text))) {
      text.remove_prefix(detail::utf8_length(text.front()));
    }
    while (s.right && !text.empty()) {
      const std::size_t last = detail::utf8_last(text, text.size());
      if (!detail::is_white_space(detail::utf8_first(text.substr(last)))) break;
      text = text.substr(0, last);
    }
    r.out().append(text);
  }
  static void run(normalize::Lowercase, std::string_view text, const Run& r) {
    each(text, [&](char32_t c, std::string_view) {
      if (c == 0x130) {
        r.out().append("i\xCC\x87");
      } else {
        r.out().append(detail::lower(c));
      }
    });
  }
  static void run(const normalize::RemoveMarks& s, std::string_view text, const Run& r) {
    each(text, [&](char32_t c, std::string_view bytes) {
      if (!detail::is_mark(c, s.nonspacing)) r.out().append(bytes);
    });
  }
  static void run(normalize::Clean, std::string_view text, const Run& r) {
    each(text, [&](char32_t c, std::string_view bytes) {
      const bool line = c == '\t' || c == '\n' || c == '\r';
      if (c == 0 || c == 0xFFFD || (!line && detail::is_other(c))) return;
      r.out().append(detail::is_white_space(c) ? " " : bytes);
    });
  }
  static void run(normalize::SpaceChinese, std::string_view text, const Run& r) {
    const auto chinese = [](char32_t c) {
      return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
             (c >= 0x2A700 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) || (c >= 0xF900 && c <= 0xFAFF) ||
             (c >= 0x2F800 && c <= 0x2FA1F);
    };
    each(text, [&](char32_t c, std::string_view bytes) {
      if (chinese(c)) r.out().append(" ");
      r.out().append(bytes);
      if (chinese(c)) r.out().append(" ");
    });
  }

  std::vector<NormalizerStep> steps_;
};

}  // namespace finteam::inline FINTEAM_ABI
