// Chat formats by a family's name, by what they are like, or declared in full: team.json's "chat".
// Not here: the families' table (chat_families.hpp), what a format's keys mean (chat_layout.hpp).
#pragma once

#include <finteam/file/json_view.hpp>
#include <finteam/text/chat_families.hpp>
#include <finteam/text/chat_layout.hpp>

#include <string>
#include <string_view>
#include <utility>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

[[nodiscard]] inline Json family_format(std::string_view name);

/// An object over the family's that it is "like": its keys replace the family's; null takes one out.
[[nodiscard]] inline Json like_filled_in(Json json) {
  const auto like = json.find("like");
  if (like == json.end() || like->is_null()) return json;
  Json whole = family_format(like->get_ref<const std::string&>());
  json.erase(like);
  whole.update(json);
  return whole;
}

/// The row of that name with what it is like filled in, or null.
[[nodiscard]] inline Json family_format(std::string_view name) {
  for (const ChatFamily& family : chat_families) {
    if (family.name == name) return like_filled_in(parse_json(family.format, std::string(name)));
  }
  return nullptr;
}

[[nodiscard]] inline std::string family_names() {
  std::string names;
  for (const ChatFamily& family : chat_families) (names += names.empty() ? "" : ", ") += family.name;
  return names;
}

}  // namespace detail

/// The format of a known family. where: the file and key that hold its name. Throws Error(unsupported).
[[nodiscard]] inline ChatLayout chat_layout(std::string_view name, const std::string& where) {
  const Json json = detail::family_format(name);
  if (json.is_null()) {
    throw Error(Code::unsupported, where, "a chat format (" + detail::family_names() + "), or one declared",
                detail::in_quotes(name));
  }
  return detail::read_layout(JsonView(json, where), std::string(name));
}

/// A format by its name, or declared: docs/team.md. Throws Error that names the key.
[[nodiscard]] inline ChatLayout chat_layout(const JsonView& json) {
  if (json.is_string()) return chat_layout(json.as_string(), json.where());
  if (!json.is_object()) json.refuse("the name of a chat format, or a format");
  const auto like = json.find("like");
  const ChatLayout known = like ? chat_layout(like->as_string(), like->where()) : ChatLayout{};
  const Json whole = detail::like_filled_in(json.json());
  return detail::read_layout(JsonView(whole, json.where()), like ? "like " + known.name : "declared");
}

}  // namespace finteam::inline FINTEAM_ABI
