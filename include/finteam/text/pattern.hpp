// A compiled pattern over PCRE2 (8 bit, UTF, UCP; JIT where there is one), and a search through a text for its matches.
// Every search has a budget of steps and a fixed arena: what does not fit is an Error, never a hang and never a malloc.
#pragma once

#include <finteam/text/pattern_syntax.hpp>
#include <finteam/text/pcre2.hpp>
#include <finteam/text/utf8.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace finteam::inline FINTEAM_ABI {
/// What runs a pattern: machine code where PCRE2 can make it, or its interpreter (for hosts that forbid such memory).
enum class PatternEngine : std::uint8_t { fastest, interpreter };

/// An immutable pattern, to be shared between threads.
class Pattern {
 public:
  static constexpr std::size_t max_pattern_bytes = 4096;
  static constexpr std::uint32_t heap_limit_kib = 512;

  /// Compiles a pattern as tokenizer.json writes it (Oniguruma; see pattern_syntax.hpp). Throws Error: malformed for
  /// what PCRE2 refuses, unsupported for what it would read differently or what can match nothing, limit_exceeded for
  /// its length.
  Pattern(std::string_view pattern, std::string where, PatternEngine engine = PatternEngine::fastest)
      : where_(std::move(where)) {
    if (pattern.size() > max_pattern_bytes) {
      throw Error(Code::limit_exceeded, where_, "a pattern of at most " + std::to_string(max_pattern_bytes) + " bytes",
                  std::to_string(pattern.size()));
    }
    check_utf8(pattern, where_);
    const std::string translated = pcre2_syntax(pattern, where_);
    const detail::Pcre2Ptr<pcre2_compile_context_8> context(pcre2_compile_context_create_8(nullptr));
    if (context == nullptr) detail::throw_pcre2(PCRE2_ERROR_NOMEMORY, where_);
    pcre2_set_newline_8(context.get(), PCRE2_NEWLINE_LF);
    int status = 0;
    std::size_t offset = 0;
    // Anchored where each attempt starts; as an option of the match it would switch the JIT off.
    code_.reset(pcre2_compile_8(reinterpret_cast<PCRE2_SPTR8>(translated.data()), translated.size(),
                                PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &status, &offset, context.get()));
    if (code_ == nullptr) detail::throw_pcre2(status, where_);
    std::uint32_t matches_empty = 0;
    pcre2_pattern_info_8(code_.get(), PCRE2_INFO_MATCHEMPTY, &matches_empty);
    if (matches_empty != 0) {
      throw Error(Code::unsupported, where_, "a pattern that never matches nothing", detail::in_quotes(pattern));
    }
    // Where this fails, pcre2_match interprets.
    if (engine == PatternEngine::fastest) pcre2_jit_compile_8(code_.get(), PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
  }

  /// All memory that searches need, for one thread at a time. Fits every pattern.
  class Scratch {
   public:
    Scratch() : arena_(std::make_unique<detail::Pcre2Arena>(3 * 1024 * heap_limit_kib)) {
      general_.reset(
          pcre2_general_context_create_8(detail::Pcre2Arena::allocate, detail::Pcre2Arena::release, arena_.get()));
      if (general_ == nullptr) detail::throw_pcre2(PCRE2_ERROR_NOMEMORY, "pattern");
      context_.reset(pcre2_match_context_create_8(general_.get()));
      data_.reset(pcre2_match_data_create_8(1, general_.get()));
      if (context_ == nullptr || data_ == nullptr) detail::throw_pcre2(PCRE2_ERROR_NOMEMORY, "pattern");
      pcre2_set_heap_limit_8(context_.get(), heap_limit_kib);
      stack_.reset(pcre2_jit_stack_create_8(32 * 1024, 1024 * heap_limit_kib, general_.get()));
      if (stack_ != nullptr) pcre2_jit_stack_assign_8(context_.get(), nullptr, stack_.get());
      arena_->settle();
    }
    Scratch(Scratch&&) noexcept = default;
    Scratch& operator=(Scratch&& other) noexcept {  // by exchange: what lives in an arena must go before it
      std::swap(arena_, other.arena_);
      std::swap(general_, other.general_);
      std::swap(context_, other.context_);
      std::swap(data_, other.data_);
      std::swap(stack_, other.stack_);
      steps_left_ = other.steps_left_;
      return *this;
    }

   private:
    friend class Pattern;
    std::unique_ptr<detail::Pcre2Arena> arena_;  // first: the others live in it
    detail::Pcre2Ptr<pcre2_general_context_8> general_;
    detail::Pcre2Ptr<pcre2_match_context_8> context_;
    detail::Pcre2Ptr<pcre2_match_data_8> data_;
    detail::Pcre2Ptr<pcre2_jit_stack_8> stack_;
    std::uint64_t steps_left_ = 0;
  };

  /// The matches of a pattern in a text, from left to right, none empty. Pattern, scratch and text must outlive it.
  class Search {
   public:
    /// text is well-formed UTF-8 (the caller has checked).
    Search(const Pattern& pattern, Scratch& scratch, std::string_view text) noexcept
        : Search(pattern, scratch, text, scratch.steps_left_) {
      scratch.steps_left_ = budget(text.size());
    }
    /// The same with a budget that several searches share, through parts of one text.
    Search(const Pattern& pattern, Scratch& scratch, std::string_view text, std::uint64_t& steps_left) noexcept
        : pattern_(pattern), scratch_(scratch), text_(text), steps_left_(steps_left) {}

    /// Moves to the next match; false if there is none. Throws Error(limit_exceeded) when the budget (10,000,000 and 64
    /// for each byte, for the whole text: steps of backtracking, and bytes that an attempt looks ahead) or the memory
    /// is spent.
    bool next() {
      for (std::size_t at = end_; at < text_.size(); at += detail::utf8_step(text_.substr(at)).bytes) {
        const int count = match(at);
        if (count == PCRE2_ERROR_NOMATCH) continue;
        if (count < 0) detail::throw_pcre2(count, pattern_.where_);
        const std::size_t* offsets = pcre2_get_ovector_pointer_8(scratch_.data_.get());
        begin_ = offsets[0];
        end_ = offsets[1];
        return true;
      }
      end_ = text_.size();
      return false;
    }
    /// Byte offsets of the match.
    [[nodiscard]] std::size_t begin() const noexcept { return begin_; }
    [[nodiscard]] std::size_t end() const noexcept { return end_; }

   private:
    /// A match that starts at `at`. Ordinary ones need few steps and look ahead little, which is not counted; an
    /// attempt that needs more is made again with four times as much, at the budget's cost. (PCRE2 counts steps, but
    /// not how far a repeat runs, and it counts anew at every start: its own limit alone would not keep a search from
    /// taking hours.)
    int match(std::size_t at) {
      std::uint32_t steps = 1000;
      for (std::size_t window = 4096;;) {
        const int count = match_within(at, window, steps);
        if (count == PCRE2_ERROR_PARTIAL) {
          window *= 4;
        } else if (count == PCRE2_ERROR_MATCHLIMIT) {
          steps = std::min(steps, 0x3FFFFFFFU) * 4;
        } else {
          return count;
        }
        const std::uint64_t cost = count == PCRE2_ERROR_PARTIAL ? window : steps;
        if (cost > steps_left_) return PCRE2_ERROR_MATCHLIMIT;
        steps_left_ -= cost;
      }
    }
    /// PCRE2_ERROR_PARTIAL if the window's end, which is not the text's, was looked at.
    int match_within(std::size_t at, std::size_t window, std::uint32_t steps) {
      std::size_t end = text_.size();
      std::uint32_t options = PCRE2_NOTEMPTY | PCRE2_NO_UTF_CHECK;
      if (window < text_.size() - at) {
        options |= PCRE2_PARTIAL_HARD;
        for (end = at + window; (static_cast<unsigned char>(text_[end]) & 0xC0) == 0x80;) --end;
      }
      pcre2_set_match_limit_8(scratch_.context_.get(), steps);
      const auto run = [&](std::uint32_t engine) {
        return pcre2_match_8(pattern_.code_.get(), reinterpret_cast<PCRE2_SPTR8>(text_.data()), end, at,
                             options | engine, scratch_.data_.get(), scratch_.context_.get());
      };
      const int count = run(0);
      return count == PCRE2_ERROR_JIT_STACKLIMIT ? run(PCRE2_NO_JIT) : count;
    }

    const Pattern& pattern_;
    Scratch& scratch_;
    std::string_view text_;
    std::uint64_t& steps_left_;
    std::size_t begin_ = 0, end_ = 0;
  };

  /// What the searches through a text of so many bytes may cost together.
  [[nodiscard]] static std::uint64_t budget(std::size_t bytes) noexcept { return 10'000'000 + 64 * bytes; }

 private:
  std::string where_;
  detail::Pcre2Ptr<pcre2_code_8> code_;
};

}  // namespace finteam::inline FINTEAM_ABI
