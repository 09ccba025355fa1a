// A text as it may be shown while its tokens arrive: whole characters, and nothing of a stop string.
#pragma once

#include <finteam/text/stop.hpp>
#include <finteam/text/tokenizer.hpp>

#include <string>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// Allocates when it is made, and when begin() is given other stop strings than the last time.
class TextStream {
 public:
  /// The tokenizer must outlive it.
  explicit TextStream(const Tokenizer& tokenizer) : decoder_(tokenizer), matcher_({}, decoder_.max_piece_bytes()) {}

  /// A new text, which ends before any of `stops`. place: inside, if it goes on with a text that is shown already, and
  /// not an answer of its own. Throws Error as StopMatcher does; the stream is then as it was.
  void begin(const std::vector<std::string>& stops, TextPlace place = TextPlace::start) {
    if (stops != stops_) {
      StopMatcher matcher(stops, decoder_.max_piece_bytes());
      stops_ = stops;
      matcher_ = std::move(matcher);
    }
    matcher_.flush();
    decoder_.begin(place);
  }

  /// Takes the next token; emit(std::string_view) -> bool gets what may be shown of it now, if there is anything.
  /// False if emit said so.
  template <class Emit>
  bool push(std::int32_t id, Emit&& emit) {
    return show(matcher_.push(decoder_.push(id)), emit);
  }

  /// The end of the tokens: emits what still waited, unless a stop string was found.
  template <class Emit>
  void finish(Emit&& emit) {
    if (matcher_.stopped() || !show(matcher_.push(decoder_.flush()), emit) || matcher_.stopped()) return;
    show(matcher_.flush(), emit);
  }

  /// The most bytes that a token can add.
  [[nodiscard]] std::size_t max_piece_bytes() const noexcept { return decoder_.max_piece_bytes(); }

  /// Whether a stop string has ended the text.
  [[nodiscard]] bool stopped() const noexcept { return matcher_.stopped(); }

 private:
  template <class Emit>
  static bool show(std::string_view piece, Emit& emit) {
    return piece.empty() || emit(piece);
  }

  StreamDecoder decoder_;
  StopMatcher matcher_;
  std::vector<std::string> stops_;  // what matcher_ looks for
};

}  // namespace finteam::inline FINTEAM_ABI
