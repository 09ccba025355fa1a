// One run of text after another, each tokenised whole, with structure tokens between them: how transformers tokenises
// a rendered conversation, but that only a format's own tokens are structure. Not here: what is written (chat.hpp).
#pragma once

#include <finteam/text/chat_message.hpp>
#include <finteam/text/chat_pieces.hpp>
#include <finteam/text/chat_strip.hpp>
#include <finteam/text/tokenizer.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// All memory that writing a conversation needs, for one thread at a time. Made by ChatFormat::scratch.
class ChatScratch {
 public:
  /// What a tokenizer needs for a text beside conversations. Throws Error(limit_exceeded) for one of more than
  /// max_bytes() bytes.
  [[nodiscard]] Tokenizer::Scratch& text(std::string_view text) {
    detail::check_text_bytes(text, max_bytes_);
    return text_;
  }
  /// The longest content.
  [[nodiscard]] std::size_t max_bytes() const noexcept { return max_bytes_; }

 private:
  friend class ChatFormat;
  ChatScratch(Tokenizer::Scratch text, std::size_t max_bytes) : text_(std::move(text)), max_bytes_(max_bytes) {
    run_.reserve(text_.max_bytes());
  }
  Tokenizer::Scratch text_;
  std::string run_;
  std::size_t max_bytes_;
};

namespace detail {

/// Writes pieces and contents, and appends the ids. Within the memory of its scratch it allocates nothing.
class ChatWriter {
 public:
  /// run is the memory that runs are put together in; its capacity is the longest one. place: of the first one.
  ChatWriter(const Tokenizer& tokenizer, const std::vector<std::string>& markers, Tokenizer::Scratch& scratch,
             std::string& run, std::vector<std::int32_t>& ids, TextPlace place = TextPlace::start)
      : tokenizer_(&tokenizer), markers_(&markers), scratch_(&scratch), run_(&run), ids_(&ids), place_(place) {
    run.clear();
  }

  void write(const std::vector<ChatPiece>& pieces) {
    for (const ChatPiece& piece : pieces) {
      if (piece.token.id < 0) {
        write(piece.text);
        own_markers_ += piece.markers;
      } else {
        write(piece.token);
      }
    }
  }

  /// Throws Error(limit_exceeded) for a run that is longer than the scratch is for.
  void write(std::string_view text) {
    if (text.size() > scratch_->max_bytes() - run_->size()) {
      throw Error(Code::limit_exceeded, "chat",
                  "at most " + std::to_string(scratch_->max_bytes()) + " bytes between two structure tokens", "more");
    }
    *run_ += text;
  }

  /// Where in the run the next text will stand.
  [[nodiscard]] std::size_t place() const noexcept { return run_->size(); }
  /// Strips what was written since place() gave that.
  void strip_from(std::size_t place) {
    place = std::min(place, run_->size());  // a token in between: the run began anew
    const std::string_view kept = strip(std::string_view(*run_).substr(place));
    const auto front = static_cast<std::size_t>(kept.data() - run_->data()) - place;
    const std::size_t size = kept.size();
    run_->erase(place, front);
    run_->resize(place + size);
  }

  /// The end: what is left becomes ids.
  void finish() { flush(false); }

 private:
  void write(const StructureToken& token) {
    flush(token.eats_before);
    ids_->push_back(token.id);
    place_ = TextPlace::inside;
    skip_space_ = token.eats_after;
  }

  /// Throws Error(invalid_argument) if a content spells a marker, alone or with the text around it.
  void flush(bool drop_space) {
    std::string_view run = *run_;
    if (!markers_->empty() && count_markers(run, *markers_) != own_markers_) {
      std::string all;
      for (const std::string& marker : *markers_) all += (all.empty() ? "" : ", ") + marker;
      throw Error(Code::invalid_argument, "message", "content without " + all + ", which are structure here",
                  "one of them");
    }
    own_markers_ = 0;
    if (skip_space_) run = drop_front(run, is_white_space);
    if (drop_space) run = drop_back(run, is_white_space);
    if (!run.empty()) tokenizer_->encode(run, *scratch_, *ids_, place_);
    if (!run_->empty()) place_ = TextPlace::inside;
    run_->clear();
  }

  const Tokenizer* tokenizer_;
  const std::vector<std::string>* markers_;
  Tokenizer::Scratch* scratch_;
  std::string* run_;
  std::vector<std::int32_t>* ids_;
  std::size_t own_markers_ = 0;
  TextPlace place_;
  bool skip_space_ = false;
};

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
