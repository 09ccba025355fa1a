// Messages, and what a format makes of their order and of their contents before they are written.
// Not here: ids (chat.hpp).
#pragma once

#include <finteam/text/chat_layout.hpp>
#include <finteam/text/chat_strip.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace finteam::inline FINTEAM_ABI {

/// Who speaks. (A team's roles are another thing.)
enum class ChatRole : std::uint8_t { system, user, assistant };

/// One turn of a conversation. The content is not owned.
struct Message {
  ChatRole role = ChatRole::user;
  std::string_view content;
};

namespace detail {

/// Throws Error(invalid_argument) for no message, or roles in an order that the format does not have.
inline void check_order(const ChatLayout& layout, std::span<const Message> messages) {
  const auto refuse = [&](std::size_t i, std::string expected) {
    constexpr const char* names[] = {"a system's", "a user's", "an assistant's"};
    throw Error(Code::invalid_argument, "chat: message " + std::to_string(i),
                std::move(expected) + " (chat format " + layout.name + ")",
                names[static_cast<std::size_t>(messages[i].role)]);
  };
  if (messages.empty()) throw Error(Code::invalid_argument, "chat", "at least one message", "none");
  const std::size_t n = messages.size(), first = messages[0].role == ChatRole::system ? 1 : 0;
  if (first == 1 && !layout.system) refuse(0, "no system message");
  for (std::size_t i = first; i < n; ++i) {
    const ChatRole role = messages[i].role;
    if (role == ChatRole::system && !layout.system_later) refuse(i, "a system message at the start only");
    const ChatRole turn = (i - first) % 2 == 0 ? ChatRole::user : ChatRole::assistant;
    if (layout.alternate && role != turn) refuse(i, "user and assistant in turn");
  }
  const bool folded = first == 1 && layout.place != SystemPlace::turn;
  if ((layout.user_last || (folded && layout.place == SystemPlace::last_user)) &&
      messages[n - 1].role != ChatRole::user) {
    refuse(n - 1, "a user's message at the end");
  }
  if (folded && (n == 1 || (layout.place == SystemPlace::first_user && messages[1].role != ChatRole::user))) {
    refuse(n == 1 ? 0 : 1, "a user's message after the system's");
  }
}

inline void check_text_bytes(std::string_view text, std::size_t max_bytes) {
  if (text.size() <= max_bytes) return;
  throw Error(Code::limit_exceeded, "text", "at most " + std::to_string(max_bytes) + " bytes",
              std::to_string(text.size()));
}

/// What of a content is written. Throws Error: malformed (not UTF-8), limit_exceeded, invalid_argument for what the
/// template would read as a command.
[[nodiscard]] inline std::string_view written_part(const ChatTurn& how, std::string_view content,
                                                   std::size_t max_bytes) {
  check_text_bytes(content, max_bytes);
  check_utf8(content, "message");  // before anything is cut off, so that the offset is the caller's
  for (const std::string& never : how.never) {
    if (content.find(never) != std::string_view::npos) {
      throw Error(Code::invalid_argument, "message", "content without the template's commands", in_quotes(never));
    }
  }
  const auto is_newline = [](char32_t c) { return c == '\n'; };
  const std::size_t at = how.drop_through.empty() ? std::string_view::npos : content.rfind(how.drop_through);
  if (at != std::string_view::npos) content = drop_front(content.substr(at + how.drop_through.size()), is_newline);
  switch (how.strip) {
    case ContentStrip::ends: return strip(content);
    case ContentStrip::end: return drop_back(content, is_space_of_python);
    case ContentStrip::newlines: return drop_front(content, is_newline);
    case ContentStrip::none:
    case ContentStrip::together: break;
  }
  return content;
}

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
