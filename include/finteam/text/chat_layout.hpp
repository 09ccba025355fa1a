// How a family writes a conversation, as data: what stands before and after each content, and which of it is structure.
// Not here: formats by name (chat_formats.hpp), token ids (chat.hpp).
#pragma once

#include <finteam/file/json_view.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// What a template cuts off a content before it writes it.
enum class ContentStrip : std::uint8_t {
  none,
  ends,      ///< white space at both ends, as Python's strip
  end,       ///< white space at the end
  newlines,  ///< newlines at the start
  together   ///< white space at the ends of what a system message before it and the content make together
};

/// What stands around a content.
struct ChatTurn {
  std::string before, after;
  ContentStrip strip = ContentStrip::none;
  std::string drop_through;  ///< if the content holds this: only what follows the last of them, and its newlines, stays
  std::vector<std::string> never;  ///< what the template would read as a command: such a content is refused
  bool empty_is_none = false;      ///< a message whose content is empty, once stripped, is none
};

/// Where a system message at the start of a conversation goes.
enum class SystemPlace : std::uint8_t { turn, first_user, last_user };

/// A format before it meets a tokenizer. Texts may hold structure tokens, spelt as in `tokens`.
struct ChatLayout {
  std::string name;
  bool prefix = false;               ///< what the tokenizer puts before a text comes first
  std::string start;                 ///< then this
  std::vector<std::string> tokens;   ///< structure: added tokens that the tokenizer must have
  std::vector<std::string> markers;  ///< structure that is plain text where the tokenizer has no such added token
  std::optional<ChatTurn> system;    ///< none: a system message is refused
  SystemPlace place = SystemPlace::turn;
  std::string no_system;                 ///< what is written where no system message comes first
  std::optional<ChatTurn> system_later;  ///< a system message that is not the first; none: refused
  ChatTurn user, assistant;
  std::string between;     ///< between two messages
  std::string open;        ///< the start of the assistant's answer
  std::string end;         ///< the token that ends it; may be empty
  bool alternate = false;  ///< after the system message: user, assistant, user, …
  bool user_last = false;  ///< the last message must be a user's
};

namespace detail {

/// Longer texts in a format are nobody's format.
inline constexpr std::size_t max_layout_bytes = 1 << 16;

/// Replaces every {date} and tells whether there was one.
inline bool put_date(std::string& text, std::string_view date) {
  constexpr std::string_view slot = "{date}";
  bool found = false;
  for (std::size_t at = text.find(slot); at != std::string::npos; at = text.find(slot, at + date.size())) {
    text.replace(at, slot.size(), date);
    found = true;
  }
  return found;
}

[[nodiscard]] inline std::vector<std::string> read_strings(const JsonView& object, std::string_view key) {
  std::vector<std::string> strings;
  if (const auto list = object.find(key)) {
    list->each([&](const JsonView& s) {
      if (s.as_string().empty()) s.refuse("a string that is not empty");
      strings.push_back(s.as_string());
    });
    if (strings.size() > 64) list->refuse("at most 64 strings", Code::limit_exceeded);
  }
  return strings;
}

/// Reads the keys of a turn; a system turn has more, which read_layout reads.
[[nodiscard]] inline ChatTurn read_turn(const JsonView& json, bool system = false) {
  if (system) {
    only_keys(json, {"before", "after", "strip", "never", "empty_is_none", "in", "none"});
  } else {
    only_keys(json, {"before", "after", "strip", "never", "empty_is_none", "drop_through"});
  }
  ChatTurn turn{json.string_or("before", ""),       json.string_or("after", ""), {},
                json.string_or("drop_through", ""), read_strings(json, "never"), json.bool_or("empty_is_none", false)};
  if (const auto strip = json.find("strip")) {
    turn.strip = static_cast<ContentStrip>(one_of(*strip, {"none", "ends", "end", "newlines", "together"}));
  }
  return turn;
}

/// Puts the date where the texts have room for it. Errors as read_layout.
inline void fill_date(ChatLayout& f, const JsonView& json) {
  std::vector<std::string*> texts{&f.start, &f.no_system, &f.between, &f.open, &f.user.before, &f.user.after};
  for (ChatTurn* turn : {&f.assistant, f.system ? &*f.system : nullptr, f.system_later ? &*f.system_later : nullptr}) {
    if (turn != nullptr) texts.insert(texts.end(), {&turn->before, &turn->after});
  }
  const auto date = json.find("date");
  bool dated = false;
  std::size_t bytes = 0;
  for (std::string* text : texts) {
    if (date) dated = put_date(*text, date->as_string()) || dated;
    if (!date && text->find("{date}") != std::string::npos) json.refuse("a date, for {date}", Code::mismatch);
    bytes += text->size();
  }
  if (date && !dated) date->refuse("null: the format writes no {date}", Code::mismatch);
  if (bytes > max_layout_bytes) {
    json.refuse("at most " + std::to_string(max_layout_bytes) + " bytes of text", Code::limit_exceeded);
  }
}

/// A format as docs/team.md describes it, without "like". Throws Error as JsonView; mismatch for a date that no text
/// has room for, or the other way round; limit_exceeded for texts that are too long.
[[nodiscard]] inline ChatLayout read_layout(const JsonView& json, std::string name) {
  only_keys(json, {"prefix", "start", "tokens", "markers", "system", "system_later", "user", "assistant", "between",
                   "open", "end", "alternate", "user_last", "date"});
  ChatLayout f;
  f.name = std::move(name);
  f.prefix = json.bool_or("prefix", false);
  f.start = json.string_or("start", "");
  f.tokens = read_strings(json, "tokens");
  f.markers = read_strings(json, "markers");
  if (const auto system = json.find("system")) {
    f.system = read_turn(*system, true);
    if (const auto in = system->find("in")) {
      f.place = static_cast<SystemPlace>(one_of(*in, {"turn", "first_user", "last_user"}));
    }
    f.no_system = system->string_or("none", "");
  }
  if (const auto later = json.find("system_later")) f.system_later = read_turn(*later);
  f.user = read_turn(json.at("user"));
  f.assistant = read_turn(json.at("assistant"));
  f.between = json.string_or("between", "");
  f.open = json.string_or("open", "");
  f.end = json.string_or("end", "");
  f.alternate = json.bool_or("alternate", false);
  f.user_last = json.bool_or("user_last", false);

  fill_date(f, json);
  return f;
}

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
