// Unicode's normal forms NFC, NFD, NFKC and NFKD of a text, in time n log n and memory of its own.
// Source: Unicode Standard Annex #15; The Unicode Standard, section 3.11 (D108 to D117).
#pragma once

#include <finteam/text/text_buffer.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// The name of a normal form is what it does: C composes, D does not; K replaces compatibility characters.
enum class NormalForm : std::uint8_t { nfc, nfd, nfkc, nfkd };

namespace detail {

/// Writes one text. A starter and the marks after it wait until the next starter.
class NormalFormWriter {
 public:
  /// The marks that wait, each its class, its place and itself; so many can follow one starter.
  using Marks = std::vector<std::uint64_t>;

  NormalFormWriter(NormalForm form, Marks& marks, TextBuffer& out)
      : composes_(form == NormalForm::nfc || form == NormalForm::nfkc),
        compatibility_(form == NormalForm::nfkc || form == NormalForm::nfkd),
        marks_(marks),
        out_(out) {
    marks_.clear();
  }

  void write(std::string_view text) {
    while (!text.empty()) {
      std::size_t ascii = 0;
      while (ascii < text.size() && static_cast<unsigned char>(text[ascii]) < 0x80) ++ascii;
      if (ascii != 0) {
        flush();
        out_.append(text.substr(0, ascii - 1));
        starter_ = static_cast<unsigned char>(text[ascii - 1]);
        text.remove_prefix(ascii);
      } else {
        std::array<utf8proc_int32_t, 32> parts;
        for (const auto c : decompose(utf8_first(text), compatibility_, parts)) add(static_cast<char32_t>(c));
        text.remove_prefix(utf8_length(text.front()));
      }
    }
    flush();
  }

 private:
  static constexpr char32_t none = 0xFFFFFFFF;

  void add(char32_t c) {
    if (const unsigned k = combining_class(c); k != 0) {
      if (marks_.size() == marks_.capacity()) {
        throw Error(Code::limit_exceeded, "text", "at most " + std::to_string(marks_.size()) + " marks in a row",
                    "more");
      }
      // The place keeps the order of equal classes.
      marks_.push_back(std::uint64_t{k} << 56 | std::uint64_t{marks_.size()} << 24 | c);
      return;
    }
    settle();
    if (composes_ && starter_ != none && marks_.empty()) {
      if (const char32_t both = compose(starter_, c); both != 0) {
        starter_ = both;
        return;
      }
    }
    write_waiting();
    starter_ = c;
  }

  /// Orders the marks, and composes the starter with those that nothing of their class stands before.
  void settle() {
    if (marks_.empty()) return;
    std::sort(marks_.begin(), marks_.end());
    if (!composes_ || starter_ == none) return;
    std::uint64_t before = 0;
    std::size_t kept = 0;
    for (const std::uint64_t mark : marks_) {
      const char32_t both = mark >> 56 != before ? compose(starter_, mark & 0xFFFFFF) : 0;
      if (both != 0) {
        starter_ = both;
      } else {
        before = mark >> 56;
        marks_[kept++] = mark;
      }
    }
    marks_.resize(kept);
  }

  void write_waiting() {
    if (starter_ != none) out_.append(starter_);
    for (const std::uint64_t mark : marks_) out_.append(static_cast<char32_t>(mark & 0xFFFFFF));
    starter_ = none;
    marks_.clear();
  }
  void flush() {
    settle();
    write_waiting();
  }

  bool composes_, compatibility_;
  Marks& marks_;
  TextBuffer& out_;
  char32_t starter_ = none;
};

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
