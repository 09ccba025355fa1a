#include <finteam/text/stop.hpp>

#include "catch.hpp"

#include <random>
#include <string>
#include <vector>

using namespace finteam;

namespace {
struct Shown {
  std::string text;
  bool stopped;
  bool operator==(const Shown&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Shown& s) { return out << s.text << (s.stopped ? " (stopped)" : ""); }

Shown run(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  StopMatcher matcher(stops, 64);
  Shown shown{{}, false};
  for (const std::string& piece : pieces) shown.text += matcher.push(piece);
  shown.stopped = matcher.stopped();
  shown.text += matcher.flush();
  return shown;
}

/// The definition: the stop string that is complete first; of those that end together, the longest.
Shown by_definition(const std::vector<std::string>& stops, const std::string& text) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    std::size_t longest = 0;
    for (const std::string& s : stops) {
      if (s.size() <= end && text.compare(end - s.size(), s.size(), s) == 0) longest = std::max(longest, s.size());
    }
    if (longest != 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}
}  // namespace

TEST_CASE("A stop string ends the text wherever the pieces are cut", "[text]") {
  CHECK(run({"END"}, {"the E", "N", "D is"}) == Shown{"the ", true});
  CHECK(run({"END"}, {"the EN"}) == Shown{"the EN", false});
  CHECK(run({"abcd", "bc"}, {"xabcd"}) == Shown{"xa", true});
  CHECK(run({"bc", "abc"}, {"xab", "c"}) == Shown{"x", true});
  CHECK(run({"\n\n"}, {"a\n", "b\n", "\nc"}) == Shown{"a\nb", true});
  CHECK(run({}, {"any", "thing"}) == Shown{"anything", false});
  CHECK(run({"€"}, {"5 ", "€"}) == Shown{"5 ", true});
}

TEST_CASE("What cannot become a stop string is shown at once, what can waits", "[text]") {
  StopMatcher matcher({"aab", "ac"}, 8);
  CHECK(matcher.push("xa") == "x");
  CHECK(matcher.push("a") == "");
  CHECK(matcher.push("a") == "a");
  CHECK(matcher.push("x") == "aax");
  CHECK_FALSE(matcher.stopped());
  CHECK(matcher.push("a") == "");
  CHECK(matcher.push("cz") == "");
  CHECK(matcher.stopped());
  CHECK(matcher.push("more") == "");
  CHECK(matcher.flush() == "");
  CHECK_FALSE(matcher.stopped());
  CHECK(matcher.push("ba") == "b");
  CHECK(matcher.flush() == "a");
}

TEST_CASE("Streaming agrees with the definition on random texts, stop strings and cuts", "[text]") {
  std::mt19937 random(11);
  const auto word = [&](std::size_t n) {
    std::string s(n, 'a');
    for (char& c : s) c = static_cast<char>('a' + random() % 2);
    return s;
  };
  int stopped = 0;
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::string> stops(1 + random() % 3);
    for (std::string& s : stops) s = word(2 + random() % 6);
    const std::string text = word(random() % 30);
    std::vector<std::string> pieces;
    for (std::size_t at = 0; at < text.size();) {
      pieces.push_back(text.substr(at, random() % 5));
      at += pieces.back().size();
    }
    const Shown expected = by_definition(stops, text);
    stopped += expected.stopped ? 1 : 0;
    CHECK(run(stops, pieces) == expected);
  }
  CHECK(stopped > 200);
  CHECK(stopped < 1900);
}

TEST_CASE("Stop strings that cannot be meant are refused", "[text][law5]") {
  const auto code = [](const std::vector<std::string>& stops) {
    try {
      StopMatcher matcher(stops, 8);
    } catch (const Error& e) {
      return name(e.code());
    }
    return std::string_view("accepted");
  };
  CHECK(code({"a", ""}) == "invalid_argument");
  CHECK(code({"\xFF"}) == "malformed");
  CHECK(code({std::string(5000, 'a')}) == "limit_exceeded");
  CHECK(code(std::vector<std::string>(65, "a")) == "limit_exceeded");
  CHECK(code({"a"}) == "accepted");
  StopMatcher matcher({"a"}, 3);
  CHECK_THROWS_AS(matcher.push("four"), Error);
}
