// The text of pieces that arrive one at a time: whole characters only, the same text however they are cut.
#pragma once

#include <finteam/text/token_decoder.hpp>
#include <finteam/text/utf8.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace finteam::inline FINTEAM_ABI {

/// Where a text stands: at the start of a whole, or inside, behind tokens that came before. Some tokenizers put a blank
/// before a text, and take it away again, at the start only.
enum class TextPlace : std::uint8_t { start, inside };

/// Allocates when it is made, then never.
class TokenStream {
 public:
  /// A run of <0xXX> tokens waits for its end, because together they are text or are not; beyond so many bytes what is
  /// well-formed is shown.
  static constexpr std::size_t max_waiting = 64;

  /// Both must outlive it.
  TokenStream(const TokenDecoder& decoder, const Vocabulary& vocabulary, TextPlace place)
      : decoder_(&decoder), vocabulary_(&vocabulary), place_(place), utf8_(decoder.max_piece_bytes()) {
    out_.reserve(max_bytes());
    restart();
  }

  /// The most bytes that push() or flush() can return.
  [[nodiscard]] std::size_t max_bytes() const noexcept {
    return 3 * (decoder_->max_piece_bytes() + 4 + (decoder_->rules().byte_fallback ? max_waiting : 0));
  }

  /// The characters that this token completes; valid until the next call. An id of the vocabulary.
  std::string_view push(std::int32_t id) {
    out_.clear();
    const std::string_view piece = decoder_->piece(id, *vocabulary_, first_);
    first_ = false;
    if (decoder_->rules().byte_level) {
      emit(utf8_.push(piece));
    } else if (decoder_->is_byte(id, *vocabulary_)) {
      push_byte(piece[0]);
    } else {
      end_run();
      emit(piece);
    }
    return out_;
  }
  /// A new text, which stands there.
  void begin(TextPlace place) {
    flush();
    place_ = place;
    restart();
  }
  /// The end of the text: what waited, U+FFFD for what is no character. The stream is then as new.
  std::string_view flush() {
    out_.clear();
    end_run();
    emit(utf8_.flush());
    restart();
    return out_;
  }

 private:
  void restart() noexcept {
    first_ = place_ == TextPlace::start;
    strip_ = first_ ? decoder_->rules().text.count : 0;
  }

  void push_byte(char byte) {
    if (!broken_ && run_bytes_ == run_.size()) {
      const std::string_view run(run_.data(), run_bytes_);
      const std::size_t good = find_invalid_utf8(run);
      broken_ = good < run.size() && detail::utf8_step(run.substr(good)).kind != detail::Utf8Step::Kind::incomplete;
      if (broken_) {
        replace(run_bytes_);
        run_bytes_ = 0;
      } else {
        emit(run.substr(0, good));
        std::copy(run_.begin() + static_cast<std::ptrdiff_t>(good), run_.end(), run_.begin());
        run_bytes_ -= good;
      }
    }
    if (broken_) return replace(1);
    run_[run_bytes_++] = byte;
  }
  /// Source: tokenizers, decoders/byte_fallback.rs: all bytes of a run are text, or each is U+FFFD.
  void end_run() {
    const std::string_view run(run_.data(), run_bytes_);
    if (find_invalid_utf8(run) == run.size()) {
      emit(run);
    } else {
      replace(run.size());
    }
    run_bytes_ = 0;
    broken_ = false;
  }
  void replace(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) emit(detail::replacement_character);
  }
  void emit(std::string_view text) {
    if (text.empty()) return;
    const std::string_view what = decoder_->rules().text.what;
    for (; strip_ > 0 && text.starts_with(what); --strip_) text.remove_prefix(what.size());
    if (!text.empty()) strip_ = 0;
    out_ += text;
  }

  const TokenDecoder* decoder_;
  const Vocabulary* vocabulary_;
  TextPlace place_;
  Utf8Stream utf8_;
  std::string out_;
  std::array<char, max_waiting> run_{};
  std::size_t run_bytes_ = 0, strip_ = 0;
  bool broken_ = false, first_ = true;
};

}  // namespace finteam::inline FINTEAM_ABI
