// Text of a bounded length: where a tokenizer's steps write what they make of a text. Allocates when it is made.
#pragma once

#include <finteam/text/unicode.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace finteam::inline FINTEAM_ABI::detail {

class TextBuffer {
 public:
  explicit TextBuffer(std::size_t max_bytes) : max_bytes_(max_bytes) { text_.reserve(max_bytes); }

  void clear() noexcept { text_.clear(); }
  /// Throws Error(limit_exceeded) beyond the length that it was made for.
  void append(std::string_view text) {
    if (text.size() > max_bytes_ - text_.size()) {
      throw Error(Code::limit_exceeded, "text",
                  "at most " + std::to_string(max_bytes_) + " bytes when it is normalised", "more");
    }
    text_ += text;
  }
  void append(char32_t c) { append(utf8_encode(c).view()); }
  [[nodiscard]] std::string_view view() const noexcept { return text_; }

 private:
  std::size_t max_bytes_;
  std::string text_;
};

}  // namespace finteam::inline FINTEAM_ABI::detail
