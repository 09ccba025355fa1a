// What a program found out, once: sections of facts, printed as text for people or as JSON for programs.
// Not here: what is found out (folder.hpp).
#pragma once

#include <finteam/core/error.hpp>
#include <finteam/file/json.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <iomanip>
#include <optional>
#include <ostream>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace inspect {

using finteam::Json;

/// "1,536": an integer as people read it.
[[nodiscard]] inline std::string grouped(std::integral auto n) {
  std::string digits = std::to_string(n);
  for (std::size_t i = digits.size(); i > 3; i -= 3) digits.insert(i - 3, ",");
  return digits;
}

/// "16.1 GB": of 1,000 kB and so on.
[[nodiscard]] inline std::string in_bytes(std::uint64_t n) {
  if (n < 1000) return std::to_string(n) + " bytes";
  constexpr std::array units{"kB", "MB", "GB", "TB"};
  double x = static_cast<double>(n) / 1000;
  std::size_t unit = 0;
  for (; x >= 999.5 && unit + 1 < units.size(); ++unit) x /= 1000;
  std::ostringstream out;
  out << std::fixed << std::setprecision(x < 9.995 ? 2 : 1) << x << ' ' << units[unit];
  return out.str();
}

/// "model type": a key as people read it.
[[nodiscard]] inline std::string words(std::string key) {
  std::replace(key.begin(), key.end(), '_', ' ');
  return key;
}

/// A value as people read it: lists with commas, objects as "key value".
[[nodiscard]] inline std::string plain(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_null()) return "none";
  if (value.is_number_unsigned()) return grouped(value.get<std::uint64_t>());
  if (value.is_number_integer()) return grouped(value.get<std::int64_t>());
  if (value.is_number_float()) {
    const double x = value.get<double>();
    if (x == std::trunc(x) && std::abs(x) < 1e15) return grouped(static_cast<std::int64_t>(x));
    std::ostringstream out;
    out << x;
    return out.str();
  }
  if (value.empty()) return "none";
  std::string all;
  for (const auto& [key, member] : value.items()) {
    const std::string text = plain(member);
    all += (all.empty() ? "" : ", ") + (value.is_array() ? text : words(key) + ' ' + text);
  }
  return all;
}

/// One thing that was found out.
struct Fact {
  std::string key;   ///< in JSON; in text with blanks for underscores
  Json value;        ///< for programs
  std::string text;  ///< for people; empty: for programs only
};

/// The facts about one thing.
struct Section {
  std::string key;     ///< in JSON: a member; or if there is a name, the list that it is an element of
  std::string title;   ///< in text
  std::string name{};  ///< of one of several things of a kind
  std::vector<Fact> facts{};

  void add(std::string fact, Json value, std::string text) {
    facts.push_back({std::move(fact), std::move(value), std::move(text)});
  }
  /// A value that reads well as it is.
  void add(std::string fact, Json value) {
    std::string text = plain(value);
    add(std::move(fact), std::move(value), std::move(text));
  }
  /// Whether it is about several things of a kind, of which people would read the same.
  [[nodiscard]] bool reads_as(const Section& other) const {
    const auto texts = [](const Section& s) {
      std::string all;
      for (const Fact& fact : s.facts) all += fact.text.empty() ? "" : fact.key + ' ' + fact.text + '\n';
      return all;
    };
    return !name.empty() && key == other.key && texts(*this) == texts(other);
  }
};

/// Sections, and what was refused on the way.
class Report {
 public:
  /// What f gives; or nothing, with its Error noted.
  template <class F>
  auto attempt(F&& f) -> std::optional<std::invoke_result_t<F>> {
    try {
      return f();
    } catch (const finteam::Error& e) {
      refused(e);
      return std::nullopt;
    }
  }
  /// Notes an Error, once.
  void refused(const finteam::Error& e) {
    const auto same = [&](const finteam::Error& other) { return std::string_view(other.what()) == e.what(); };
    if (std::none_of(refusals_.begin(), refusals_.end(), same)) refusals_.push_back(e);
  }
  void add(Section section) { sections_.push_back(std::move(section)); }

  [[nodiscard]] const std::vector<finteam::Error>& refusals() const noexcept { return refusals_; }

  /// One JSON object: a member for each section or kind of section, and "not_understood".
  [[nodiscard]] Json json() const {
    Json all = {{"finteam_inspect", 1}, {"not_understood", Json::array()}};
    for (const Section& section : sections_) {
      Json object = Json::object();
      if (!section.name.empty()) object["name"] = section.name;
      for (const Fact& fact : section.facts) object[fact.key] = fact.value;
      if (section.name.empty()) {
        all[section.key] = std::move(object);
      } else {
        all[section.key].push_back(std::move(object));
      }
    }
    for (const finteam::Error& e : refusals_) {
      all["not_understood"].push_back({{"code", name(e.code())},
                                       {"where", e.where()},
                                       {"expected", e.expected()},
                                       {"found", e.found()},
                                       {"text", e.what()}});
    }
    return all;
  }

  /// A title for each section, with the names of those that read the same, and a line for each fact, the texts below
  /// each other; at the end what was refused.
  void print(std::ostream& out) const {
    std::size_t width = 0;
    for (const Section& section : sections_) {
      for (const Fact& fact : section.facts) width = std::max(width, fact.text.empty() ? 0 : fact.key.size());
    }
    for (std::size_t i = 0; i < sections_.size();) {
      const Section& first = sections_[i];
      std::string names = first.name;
      for (++i; i < sections_.size() && first.reads_as(sections_[i]); ++i) names += ", " + sections_[i].name;
      out << first.title << (names.empty() ? "" : " ") << fit(names) << '\n';
      for (const Fact& fact : first.facts) {
        if (fact.text.empty()) continue;
        out << "  " << std::left << std::setw(static_cast<int>(width)) << fit(words(fact.key)) << "  " << fit(fact.text)
            << '\n';
      }
    }
    out << "not understood" << (refusals_.empty() ? ": nothing" : "") << '\n';
    for (const finteam::Error& e : refusals_) out << "  " << fit(e.what()) << '\n';
  }

 private:
  /// Words of a hostile file, for a terminal.
  [[nodiscard]] static std::string fit(std::string_view text) { return finteam::detail::printable(text, 1 << 20); }

  std::vector<Section> sections_;
  std::vector<finteam::Error> refusals_;
};

}  // namespace inspect
