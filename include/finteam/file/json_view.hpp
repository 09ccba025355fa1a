// Readers over a parsed JSON value that name every key they refuse, and a whole JSON file.
// Not here: parsing (json.hpp), what any file means.
#pragma once

#include <finteam/file/json.hpp>
#include <finteam/file/mapped_file.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// A value as an error's "found" says it.
[[nodiscard]] inline std::string describe(const Json& json) {
  switch (json.type()) {
    case Json::value_t::string: return in_quotes(json.get_ref<const std::string&>());
    case Json::value_t::array: return "an array of " + std::to_string(json.size());
    case Json::value_t::object: return "an object of " + std::to_string(json.size()) + " keys";
    default: return json.dump();
  }
}

}  // namespace detail

/// A value and the words that name it: `config.json: rope_scaling.factor`. Every reader refuses by throwing an Error
/// with that name: not_found for a key that is missing, malformed for a value of another type or out of its range. Does
/// not own the Json, which must outlive it.
class JsonView {
 public:
  /// The root of a file named `where`.
  JsonView(const Json& json, std::string where) : json_(&json), where_(std::move(where)), root_(true) {}

  [[nodiscard]] const Json& json() const noexcept { return *json_; }
  [[nodiscard]] const std::string& where() const noexcept { return where_; }

  /// The member `key`; Error(not_found) if there is none.
  [[nodiscard]] JsonView at(std::string_view key) const {
    const auto member = object().find(key);
    if (member == json_->end()) throw Error(Code::not_found, where_, "key " + detail::in_quotes(key), "none");
    return child(*member, key);
  }

  /// The member `key`, or nothing if there is none or it is null.
  [[nodiscard]] std::optional<JsonView> find(std::string_view key) const {
    const auto member = object().find(key);
    if (member == json_->end() || member->is_null()) return std::nullopt;
    return child(*member, key);
  }

  /// Number of elements; malformed unless it is an array.
  [[nodiscard]] std::size_t size() const { return array().size(); }
  /// Element i of an array; i < size().
  [[nodiscard]] JsonView operator[](std::size_t i) const {
    if (i >= size()) refuse("an array of more than " + std::to_string(i));
    return JsonView((*json_)[i], where_ + '[' + std::to_string(i) + ']', false);
  }

  /// f(std::string_view key, const JsonView& value) for every member of an object, in the order of the keys.
  template <class F>
  void each_member(F&& f) const {
    const Json& members = object();
    for (auto i = members.begin(); i != members.end(); ++i) f(std::string_view(i.key()), child(*i, i.key()));
  }
  /// f(const JsonView& value) for every element of an array.
  template <class F>
  void each(F&& f) const {
    for (std::size_t i = 0; i < size(); ++i) f((*this)[i]);
  }

  /// An integer in [min, max]. 4096.0 and 1e5 are integers, 0.5 is not.
  [[nodiscard]] std::int64_t as_int(std::int64_t min, std::int64_t max) const {
    const std::optional<std::int64_t> x = integer();
    if (!x || *x < min || *x > max) {
      refuse("an integer from " + std::to_string(min) + " to " + std::to_string(max));
    }
    return *x;
  }
  /// A non-negative integer that is written as digits only, as safetensors wants it.
  [[nodiscard]] std::uint64_t as_unsigned() const {
    if (!json_->is_number_unsigned()) refuse("a non-negative integer");
    return json_->get<std::uint64_t>();
  }
  /// A number in [min, max].
  [[nodiscard]] double as_number(double min, double max) const {
    const double x = as_number();
    if (!(x >= min && x <= max)) refuse("a number from " + Json(min).dump() + " to " + Json(max).dump());
    return x;
  }
  /// Any finite number.
  [[nodiscard]] double as_number() const {
    if (!json_->is_number()) refuse("a number");
    return json_->get<double>();
  }
  [[nodiscard]] bool as_bool() const {
    if (!json_->is_boolean()) refuse("true or false");
    return json_->get<bool>();
  }
  /// A string in UTF-8; it lives as long as the Json.
  [[nodiscard]] const std::string& as_string() const {
    if (!json_->is_string()) refuse("a string");
    return json_->get_ref<const std::string&>();
  }
  [[nodiscard]] bool is_string() const noexcept { return json_->is_string(); }
  [[nodiscard]] bool is_array() const noexcept { return json_->is_array(); }
  [[nodiscard]] bool is_object() const noexcept { return json_->is_object(); }
  [[nodiscard]] bool is_number() const noexcept { return json_->is_number(); }
  [[nodiscard]] bool is_null() const noexcept { return json_->is_null(); }

  /// The member `key` read as the function says, or `otherwise` if it is missing or null.
  [[nodiscard]] std::int64_t int_or(std::string_view key, std::int64_t otherwise, std::int64_t min,
                                    std::int64_t max) const {
    const auto x = find(key);
    return x ? x->as_int(min, max) : otherwise;
  }
  [[nodiscard]] double number_or(std::string_view key, double otherwise, double min, double max) const {
    const auto x = find(key);
    return x ? x->as_number(min, max) : otherwise;
  }
  [[nodiscard]] bool bool_or(std::string_view key, bool otherwise) const {
    const auto x = find(key);
    return x ? x->as_bool() : otherwise;
  }
  [[nodiscard]] std::string string_or(std::string_view key, std::string_view otherwise) const {
    const auto x = find(key);
    return std::string(x ? std::string_view(x->as_string()) : otherwise);
  }

  /// Throws Error(code, where(), expected, this value).
  [[noreturn]] void refuse(std::string expected, Code code = Code::malformed) const {
    throw Error(code, where_, std::move(expected), detail::describe(*json_));
  }

 private:
  JsonView(const Json& json, std::string where, bool root) : json_(&json), where_(std::move(where)), root_(root) {}

  [[nodiscard]] JsonView child(const Json& json, std::string_view key) const {
    return JsonView(json, where_ + (root_ ? ": " : ".") + detail::printable(key), false);
  }
  [[nodiscard]] const Json& object() const {
    if (!json_->is_object()) refuse("an object");
    return *json_;
  }
  [[nodiscard]] const Json& array() const {
    if (!json_->is_array()) refuse("an array");
    return *json_;
  }
  [[nodiscard]] std::optional<std::int64_t> integer() const {
    if (json_->is_number_unsigned()) {
      const auto x = json_->get<std::uint64_t>();
      if (!std::in_range<std::int64_t>(x)) return std::nullopt;
      return static_cast<std::int64_t>(x);
    }
    if (json_->is_number_integer()) return json_->get<std::int64_t>();
    if (!json_->is_number_float()) return std::nullopt;
    const auto x = json_->get<double>();
    if (!(std::abs(x) <= 0x1p53) || std::trunc(x) != x) return std::nullopt;
    return static_cast<std::int64_t>(x);
  }

  const Json* json_;
  std::string where_;
  bool root_;
};

namespace detail {

/// One of `choices`; its index.
inline std::size_t one_of(const JsonView& json, std::span<const std::string_view> choices) {
  std::string list;
  std::size_t i = 0;
  for (const auto choice : choices) {
    if (json.as_string() == choice) return i;
    list += (i++ != 0 ? ", " : "") + std::string(choice);
  }
  json.refuse("one of " + list, Code::unsupported);
}

inline std::size_t one_of(const JsonView& json, std::initializer_list<std::string_view> choices) {
  return one_of(json, std::span(choices.begin(), choices.size()));
}

/// Throws Error(unsupported) unless every key of the object is one of those.
inline void only_keys(const JsonView& object, std::initializer_list<std::string_view> keys) {
  object.each_member([&](std::string_view key, const JsonView& value) {
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) {
      value.refuse("no such key: this build does not know it", Code::unsupported);
    }
  });
}

}  // namespace detail

/// A parsed file and its name. Moves; views of it stay good as long as it is neither moved nor destroyed.
class JsonFile {
 public:
  JsonFile(std::string_view text, std::string where, const JsonLimits& limits = {})
      : where_(std::move(where)), json_(parse_json(text, where_, limits)) {}

  /// Errors as MappedFile::open and parse_json.
  [[nodiscard]] static JsonFile open(const std::filesystem::path& path, const JsonLimits& limits = {}) {
    const MappedFile file = MappedFile::open(path);
    return JsonFile(file.text(), detail::file_label(path), limits);
  }

  [[nodiscard]] JsonView root() const { return JsonView(json_, where_); }
  [[nodiscard]] const std::string& where() const noexcept { return where_; }

 private:
  std::string where_;
  Json json_;
};

}  // namespace finteam::inline FINTEAM_ABI
