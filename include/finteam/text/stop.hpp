// Stop strings in a stream of text: what may be shown now, what must wait, and whether the text has ended.
// The answer depends on the text alone, never on how it was cut into pieces.
#pragma once

#include <finteam/text/utf8.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// Looks for several stop strings at once. The stop string that is complete first wins; of those that end together, the
/// longest. Allocates when it is made, then never.
class StopMatcher {
 public:
  static constexpr std::size_t max_stops = 64;
  static constexpr std::size_t max_stop_bytes = 4096;

  /// max_piece_bytes: the longest piece that push() will be given. Throws Error(invalid_argument) for an empty stop
  /// string, malformed for one that is not UTF-8, limit_exceeded for too many or too long ones.
  StopMatcher(const std::vector<std::string>& stops, std::size_t max_piece_bytes) : max_piece_bytes_(max_piece_bytes) {
    if (stops.size() > max_stops) {
      throw Error(Code::limit_exceeded, "stop strings", "at most " + std::to_string(max_stops),
                  std::to_string(stops.size()));
    }
    std::size_t longest = 0;
    for (const std::string& stop : stops) {
      if (stop.empty())
        throw Error(Code::invalid_argument, "stop strings", "strings that are not empty", "an empty one");
      if (stop.size() > max_stop_bytes) {
        throw Error(Code::limit_exceeded, "stop strings", "at most " + std::to_string(max_stop_bytes) + " bytes each",
                    std::to_string(stop.size()));
      }
      check_utf8(stop, "stop strings");
      stops_.emplace_back(stop);
      longest = std::max(longest, stop.size());
    }
    held_.reserve(longest + max_piece_bytes);
  }

  /// The text that no later byte can make part of a stop string; nothing more after the stop. Valid until the next
  /// call. Throws Error(limit_exceeded) for a longer piece than was agreed.
  std::string_view push(std::string_view piece) {
    if (piece.size() > max_piece_bytes_) {
      throw Error(Code::limit_exceeded, "stop strings",
                  "a piece of at most " + std::to_string(max_piece_bytes_) + " bytes", std::to_string(piece.size()));
    }
    held_.erase(0, shown_);
    shown_ = 0;
    if (stopped_) return {};
    for (const char c : piece) {
      held_ += c;
      if (const std::size_t length = step(c); length != 0) {
        stopped_ = true;
        return show(length);
      }
    }
    std::size_t waiting = 0;
    for (const Stop& stop : stops_) waiting = std::max<std::size_t>(waiting, stop.matched);
    return show(waiting);
  }

  /// The end of the text: what still waited, unless it stopped. The matcher is then as new.
  std::string_view flush() {
    held_.erase(0, shown_);
    const std::string_view rest = stopped_ ? std::string_view{} : show(0);
    stopped_ = false;
    shown_ = held_.size();
    for (Stop& stop : stops_) stop.matched = 0;
    return rest;
  }

  /// Whether a stop string has been found since the beginning or the last flush().
  [[nodiscard]] bool stopped() const noexcept { return stopped_; }

 private:
  /// One stop string with its failure function. Source: Knuth, Morris and Pratt 1977.
  struct Stop {
    explicit Stop(std::string_view s) : text(s), borders(s.size() + 1, 0) {
      for (std::uint32_t i = 1, k = 0; i < text.size(); ++i) {
        while (k > 0 && text[i] != text[k]) k = borders[k];
        if (text[i] == text[k]) ++k;
        borders[i + 1] = k;
      }
    }
    std::string text;
    std::vector<std::uint32_t> borders;  ///< [i]: the longest proper border of the first i bytes
    std::uint32_t matched = 0;           ///< how many of the last bytes are a prefix of text
  };

  /// Feeds one byte to every stop string; the length of the longest that is complete, or 0.
  std::size_t step(char c) noexcept {
    std::size_t length = 0;
    for (Stop& stop : stops_) {
      while (stop.matched > 0 && stop.text[stop.matched] != c) stop.matched = stop.borders[stop.matched];
      if (stop.text[stop.matched] == c) ++stop.matched;
      if (stop.matched == stop.text.size()) length = std::max(length, stop.text.size());
    }
    return length;
  }

  /// All that is held but the last `back` bytes.
  std::string_view show(std::size_t back) noexcept {
    shown_ = held_.size() - back;
    return std::string_view(held_).substr(0, shown_);
  }

  std::size_t max_piece_bytes_;
  std::vector<Stop> stops_;
  std::string held_;
  std::size_t shown_ = 0;
  bool stopped_ = false;
};

}  // namespace finteam::inline FINTEAM_ABI
