#include <finteam/text/utf8.hpp>

#include "catch.hpp"

#include <random>
#include <string>
#include <vector>

using namespace finteam;

namespace {
std::string lossy(std::string_view bytes) {
  Utf8Stream stream(bytes.size());
  std::string text(stream.push(bytes));
  return text += stream.flush();
}
const std::string fffd = "\xEF\xBF\xBD";
}  // namespace

TEST_CASE("Invalid UTF-8 is found at its first byte", "[text]") {
  struct Row {
    std::string text;
    std::size_t at;
  };
  for (const Row& row : std::vector<Row>{{"", 0},
                                         {"abc", 3},
                                         {"\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80", 9},
                                         {"a\x80", 1},
                                         {"\xC0\xAF", 0},          // overlong
                                         {"ab\xE0\x80\x80", 2},    // overlong
                                         {"\xED\xA0\x80", 0},      // a surrogate
                                         {"\xED\x9F\xBF", 3},      // the last before the surrogates
                                         {"\xF4\x90\x80\x80", 0},  // beyond U+10FFFF
                                         {"\xF4\x8F\xBF\xBF", 4},  // U+10FFFF
                                         {"x\xF0\x9F\x98", 1},     // cut
                                         {"\xF5\x80\x80\x80", 0}}) {
    CAPTURE(row.text);
    CHECK(find_invalid_utf8(row.text) == row.at);
  }
}

TEST_CASE("A lossy decoder writes U+FFFD once for each maximal ill-formed part", "[text]") {
  // The example of The Unicode Standard, section 3.9, table 3-8, and its neighbours.
  CHECK(lossy("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41") == fffd + fffd + fffd + fffd + fffd + fffd + fffd + fffd + "A");
  CHECK(lossy("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41") == fffd + fffd + fffd + fffd + "A");
  CHECK(lossy("\xED\xA0\x80\x41") == fffd + fffd + fffd + "A");
  CHECK(lossy("a\xF0\x9F\x98") == "a" + fffd);
  CHECK(lossy("\xF0\x9F\xE2\x82\xAC") == fffd + "\xE2\x82\xAC");
}

TEST_CASE("A stream of bytes gives the same characters however it is cut, and whole ones only", "[text]") {
  std::mt19937 random(7);
  const std::vector<std::string> parts = {"a",        "\xC3\xA4", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\x80", "\xE2",
                                          "\xF0\x9F", "\xED",     "\xC3"};
  for (int round = 0; round < 500; ++round) {
    std::string bytes;
    for (int i = 0; i < 12; ++i) bytes += parts[random() % parts.size()];
    const std::string whole = lossy(bytes);
    REQUIRE(find_invalid_utf8(whole) == whole.size());
    Utf8Stream stream(5);
    std::string text;
    for (std::size_t at = 0; at < bytes.size();) {
      const std::size_t n = std::min<std::size_t>(random() % 6, bytes.size() - at);
      const std::string piece(stream.push(std::string_view(bytes).substr(at, n)));
      CHECK(find_invalid_utf8(piece) == piece.size());
      text += piece;
      at += n;
    }
    text += stream.flush();
    CHECK(text == whole);
  }
}

TEST_CASE("A piece that is longer than the stream was made for is refused", "[text][law5]") {
  Utf8Stream stream(3);
  CHECK(stream.push("abc") == "abc");
  CHECK_THROWS_AS(stream.push("abcd"), Error);
}
