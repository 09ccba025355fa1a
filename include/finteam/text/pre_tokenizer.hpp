// How a tokenizer cuts a normalised text into words: a list of steps, each a struct, every one cutting the pieces of
// the one before. Not here: reading them from a file (pre_tokenizer_json.hpp).
#pragma once

#include <finteam/text/pattern.hpp>
#include <finteam/text/split.hpp>
#include <finteam/text/text_buffer.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

namespace pre_tokenize {

struct SplitPattern {
  Pattern pattern;
  SplitBehavior behavior;
  bool invert;
};
/// By a string that is not empty.
struct SplitString {
  std::string string;
  SplitBehavior behavior;
  bool invert;
};
/// By characters: each is a match of its own.
struct SplitCharacters {
  bool (*is)(char32_t);
  SplitBehavior behavior;
};
enum class PrependScheme : std::uint8_t { always, first_of_text, never };
/// Blanks become `replacement`, one more stands before the text; it is cut before each of them if `split`.
struct Metaspace {
  std::string replacement;
  PrependScheme prepend;
  bool split;
};
/// One blank before the text unless there is one.
struct PrefixSpace {};

}  // namespace pre_tokenize

using PreTokenizerStep =
    std::variant<pre_tokenize::SplitPattern, pre_tokenize::SplitString, pre_tokenize::SplitCharacters,
                 pre_tokenize::Metaspace, pre_tokenize::PrefixSpace>;

/// Immutable.
class PreTokenizer {
 public:
  PreTokenizer() = default;
  explicit PreTokenizer(std::vector<PreTokenizerStep> steps) : steps_(std::move(steps)) {}

  /// Whether a step writes text that was not there.
  [[nodiscard]] bool adds_text() const noexcept {
    for (const PreTokenizerStep& step : steps_) {
      if (writes(step)) return true;
    }
    return false;
  }

  /// All memory that pieces need which become no longer than max_bytes, for one thread at a time.
  class Scratch {
   public:
    Scratch(const PreTokenizer& pre, std::size_t max_bytes) {
      for (const PreTokenizerStep& step : pre.steps_) buffers_.emplace_back(writes(step) ? max_bytes : 0);
    }

   private:
    friend class PreTokenizer;
    std::vector<detail::TextBuffer> buffers_;  // one for each step
  };

  /// Calls word(std::string_view) for each word, in order, none empty. first: whether nothing stands before this text.
  /// Throws Error(limit_exceeded) for a text that grows too long, or beyond a pattern's limits (steps_left is the
  /// budget that all searches share).
  template <class Word>
  void cut(std::string_view text, bool first, Scratch& scratch, Pattern::Scratch& patterns, std::uint64_t& steps_left,
           Word&& word) const {
    const Run<Word> r{steps_, scratch, patterns, steps_left, word};
    r.from(0, text, first);
  }

 private:
  static bool writes(const PreTokenizerStep& step) noexcept {
    return std::holds_alternative<pre_tokenize::Metaspace>(step) ||
           std::holds_alternative<pre_tokenize::PrefixSpace>(step);
  }

  template <class Word>
  struct Run {
    const std::vector<PreTokenizerStep>& steps;
    Scratch& scratch;
    Pattern::Scratch& patterns;
    std::uint64_t& steps_left;
    Word& word;

    /// Step i and those after it. The file's reader bounds how many there are.
    void from(std::size_t i, std::string_view text, bool first) const {
      if (text.empty()) return;
      if (i == steps.size()) return word(text);
      std::visit([&](const auto& step) { run(step, i, text, first); }, steps[i]);
    }
    template <class Next>
    void pieces(std::size_t i, std::string_view text, bool first, SplitBehavior behavior, bool invert,
                Next&& next) const {
      detail::cut(text.size(), behavior, invert, next, [&](std::size_t begin, std::size_t end) {
        from(i + 1, text.substr(begin, end - begin), first && begin == 0);
      });
    }

    void run(const pre_tokenize::SplitPattern& s, std::size_t i, std::string_view text, bool first) const {
      Pattern::Search search(s.pattern, patterns, text, steps_left);
      pieces(i, text, first, s.behavior, s.invert, [&](std::size_t& begin, std::size_t& end) {
        const bool found = search.next();
        begin = search.begin(), end = search.end();
        return found;
      });
    }
    void run(const pre_tokenize::SplitString& s, std::size_t i, std::string_view text, bool first) const {
      pieces(i, text, first, s.behavior, s.invert, [&](std::size_t& begin, std::size_t& end) {
        begin = text.find(s.string, end);
        end = begin + s.string.size();
        return begin != std::string_view::npos;
      });
    }
    void run(const pre_tokenize::SplitCharacters& s, std::size_t i, std::string_view text, bool first) const {
      pieces(i, text, first, s.behavior, false, [&](std::size_t& begin, std::size_t& end) {
        for (begin = end; begin < text.size(); begin = end) {
          end = begin + detail::utf8_length(text[begin]);
          if (s.is(detail::utf8_decode(text.substr(begin, end - begin)))) return true;
        }
        return false;
      });
    }
    void run(const pre_tokenize::Metaspace& s, std::size_t i, std::string_view text, bool first) const {
      using enum pre_tokenize::PrependScheme;
      detail::TextBuffer& out = scratch.buffers_[i];
      out.clear();
      const bool there = text.front() == ' ' || text.starts_with(s.replacement);
      if (!there && (s.prepend == always || (s.prepend == first_of_text && first))) out.append(s.replacement);
      for (std::size_t at = 0;;) {
        const std::size_t blank = text.find(' ', at);
        out.append(text.substr(at, blank - at));
        if (blank == std::string_view::npos) break;
        out.append(s.replacement);
        at = blank + 1;
      }
      if (!s.split) return from(i + 1, out.view(), first);
      run(pre_tokenize::SplitString{s.replacement, SplitBehavior::merged_with_next, false}, i, out.view(), first);
    }
    void run(pre_tokenize::PrefixSpace, std::size_t i, std::string_view text, bool first) const {
      if (text.front() == ' ') return from(i + 1, text, first);
      detail::TextBuffer& out = scratch.buffers_[i];
      out.clear();
      out.append(" ");
      out.append(text);
      from(i + 1, out.view(), first);
    }
  };

  std::vector<PreTokenizerStep> steps_;
};

}  // namespace finteam::inline FINTEAM_ABI
