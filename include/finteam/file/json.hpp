// The one door to the JSON library: hostile text in, a bounded value or an Error out.
// Not here: reading the value (json_view.hpp), what any file means. None of nlohmann's exceptions leaves this header.
#pragma once

#include <finteam/core/error.hpp>
#include <finteam/file/quoted.hpp>

#ifndef JSON_ASSERT
#define JSON_ASSERT(x) static_cast<void>(0)  // a guest does not abort its host; nlohmann undefines it again
#endif
#include <nlohmann/json.hpp>

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// A parsed JSON value. Keys are sorted; their order in the file is lost.
using Json = nlohmann::json;

/// What a text may cost. The defaults let the largest tokenizer.json through (about a million values, 20 MB).
struct JsonLimits {
  std::size_t depth = 64;          ///< objects and arrays within each other
  std::size_t values = 5'000'000;  ///< values in all, at most about 100 bytes of memory each beside their text
  std::size_t bytes = std::size_t{1} << 28;  ///< length of the text
};

namespace detail {

/// Builds a Json while it counts: depth, values, keys that come twice. The interface is nlohmann's SAX.
class JsonBuilder {
 public:
  JsonBuilder(const std::string& where, const JsonLimits& limits) : where_(where), limits_(limits) {}

  bool null() { return add(nullptr), true; }
  bool boolean(bool x) { return add(x), true; }
  bool number_integer(Json::number_integer_t x) { return add(x), true; }
  bool number_unsigned(Json::number_unsigned_t x) { return add(x), true; }
  bool number_float(Json::number_float_t x, const std::string&) { return add(x), true; }
  bool string(std::string& x) { return add(std::move(x)), true; }
  bool binary(Json::binary_t&) { return false; }
  bool start_object(std::size_t) { return open(Json::value_t::object); }
  bool start_array(std::size_t) { return open(Json::value_t::array); }
  bool end_object() { return stack_.pop_back(), true; }
  bool end_array() { return stack_.pop_back(), true; }

  bool key(std::string& x) {
    const auto [member, fresh] = stack_.back()->emplace(std::move(x), nullptr);
    if (!fresh)
      throw Error(Code::malformed, where_, "every key once in its object", in_quotes(member.key()) + " twice");
    slot_ = &*member;
    return true;
  }

  bool parse_error(std::size_t position, const std::string& last, const Json::exception&) {
    throw Error(
        Code::malformed, where_, "valid JSON in UTF-8",
        "an error at byte " + std::to_string(position) + (last.empty() ? "" : ", after " + in_quotes(tail(last))));
  }

  [[nodiscard]] Json take() { return std::move(root_); }

 private:
  static std::string_view tail(std::string_view s) { return s.size() > 40 ? s.substr(s.size() - 40) : s; }

  template <class T>
  Json* add(T&& x) {
    if (++values_ > limits_.values) {
      throw Error(Code::limit_exceeded, where_, "at most " + std::to_string(limits_.values) + " JSON values", "more");
    }
    Json* place = stack_.empty() ? &root_ : slot_;
    if (!stack_.empty() && stack_.back()->is_array()) {
      stack_.back()->push_back(Json(std::forward<T>(x)));
      place = &stack_.back()->back();
    } else {
      *place = Json(std::forward<T>(x));
    }
    return place;
  }

  bool open(Json::value_t type) {
    if (stack_.size() >= limits_.depth) {
      throw Error(Code::limit_exceeded, where_, "JSON at most " + std::to_string(limits_.depth) + " levels deep",
                  "more");
    }
    stack_.push_back(add(type));
    return true;
  }

  const std::string& where_;
  const JsonLimits& limits_;
  Json root_;
  std::vector<Json*> stack_;  // a container does not grow while one of its members is open, so the addresses hold
  Json* slot_ = nullptr;
  std::size_t values_ = 0;
};

}  // namespace detail

/// The value of a JSON text. `where` names it in errors. Error(malformed): not UTF-8, not JSON, a key twice in an
/// object, anything after the value. Error(limit_exceeded): beyond `limits`. Iterative; memory grows with the text, not
/// with what it claims. A byte order mark is skipped.
[[nodiscard]] inline Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits = {}) {
  if (text.size() > limits.bytes) {
    throw Error(Code::limit_exceeded, where, "at most " + std::to_string(limits.bytes) + " bytes of JSON",
                std::to_string(text.size()));
  }
  if (const auto zero = text.find('\0'); zero != std::string_view::npos) {  // nlohmann would take it for the end
    throw Error(Code::malformed, where, "valid JSON in UTF-8", "a zero byte at byte " + std::to_string(zero));
  }
  detail::JsonBuilder builder(where, limits);
  Json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

}  // namespace finteam::inline FINTEAM_ABI
