#include <finteam/text/pattern.hpp>

#include "catch.hpp"

#include <string>
#include <vector>

using namespace finteam;

namespace {
const std::string llama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

std::vector<std::string> matches(const std::string& pattern, const std::string& text,
                                 PatternEngine engine = PatternEngine::fastest) {
  const Pattern p(pattern, "test", engine);
  Pattern::Scratch scratch;
  Pattern::Search search(p, scratch, text);
  std::vector<std::string> found;
  while (search.next()) found.push_back(text.substr(search.begin(), search.end() - search.begin()));
  return found;
}
using Strings = std::vector<std::string>;
}  // namespace

TEST_CASE("Llama 3's pattern cuts a sentence as its authors meant, by both engines", "[text]") {
  for (const PatternEngine engine : {PatternEngine::fastest, PatternEngine::interpreter}) {
    CHECK(matches(llama3, "It's  up 1234.5%!\r\n\n Yes", engine) ==
          Strings{"It", "'s", " ", " up", " ", "123", "4", ".", "5", "%!\r\n\n", " Yes"});
    CHECK(matches(llama3, "a  \n  b", engine) == Strings{"a", "  \n", " ", " b"});
  }
}

TEST_CASE("White space is White_Space: U+0085 and U+3000 are, U+180E is not", "[text]") {
  CHECK(matches(R"(\s)", "\xC2\x85|\xE3\x80\x80|\xE1\xA0\x8E|\x1C|\x0B").size() == 3);
  CHECK(matches(R"([\s])", "\xE1\xA0\x8E").empty());
  CHECK(matches(R"(\S)", "\xE1\xA0\x8E").size() == 1);
  CHECK(matches(R"([\S])", "\xE1\xA0\x8E \n").size() == 1);
  CHECK(matches(R"([^\s\p{L}\p{N}]+)", " \xE1\xA0\x8E!a") == Strings{"\xE1\xA0\x8E!"});
  CHECK(matches(R"(\s+(?!\S))", " \n\xE1\xA0\x8E") == Strings{" "});
}

TEST_CASE("Word characters are Oniguruma's", "[text]") {
  CHECK(matches(R"(\w+)", "a_1-\xC3\xA9\xC2\xBD \xE2\x91\xA0\xE0\xA5\x8D") ==
        Strings{"a_1", "\xC3\xA9\xC2\xBD", "\xE0\xA5\x8D"});
  CHECK(matches(R"([\w-]+|\W)", "a-b ") == Strings{"a-b", " "});
}

TEST_CASE("What the engines read differently is written as both read it", "[text]") {
  CHECK(pcre2_syntax(R"(\p{N}{1,3}+)", "t") == R"((?:\p{N}{1,3})+)");  // possessive in PCRE2
  CHECK(matches(R"(\d{2}+|x)", "1234567x") == Strings{"123456", "x"});
  CHECK(matches(R"((?:a|(b)){2}+|[x]{2}+|.)", "abaxxxy") == Strings{"ab", "a", "xx", "x", "y"});
  CHECK(matches(R"(\s++$|\s)", "a  \n b \n") == Strings{" ", " ", "\n", " ", " \n"});
  CHECK(matches(R"(^a)", "a\naba") == Strings{"a", "a"});
  CHECK(matches(R"([^(\s|[.,])]+)", "a|b,c (d").size() == 4);
  CHECK(matches(R"([x[ab]]+)", "x[ab]") == Strings{"x", "ab"});
  CHECK(matches(R"(\p{Han}+)", "a\xE4\xB8\x80\xE3\x80\x82") == Strings{"\xE4\xB8\x80"});
}

TEST_CASE("A pattern is translated only where the two engines read it alike", "[text]") {
  CHECK(pcre2_syntax(R"([^\s\p{L}]\S\s)", "t") == R"([^\p{White_Space}\p{L}]\P{White_Space}\p{White_Space})");
  CHECK(pcre2_syntax(R"(a\u00e9\x41\x{1F600}\.\[[\]\\-]x{2,3})", "t") == R"(a\x{00e9}\x41\x{1F600}\.\[[\]\\-]x{2,3})");
  CHECK(matches(R"([\]\\s]+)", R"(a]\s\b)") == Strings{R"(]\s\)"});
  for (const char* pattern :
       {R"([\W])",  R"(\bx)",      R"(\h)",       R"(\R)",        R"(\X)",          R"(\K)",
        R"(\Qa\E)", R"(\1)",       R"(\pL)",      R"(\p{Emoji})", R"(\p{^L})",      R"(\p{Letter})",
        R"(\p{})",  R"(\p{L Lu})", R"(\xE9)",     R"(\x{})",      R"(\x{1234567})", R"(\u12)",
        "[[^a]]",   "[a-[b]]",     "[[:alpha:]]", "[a&&b]",       "[]a]",           "[^]a]",
        "(?m:a)",   "(?i)a",       "(?<n>a)",     "(?#c)",        "(*UTF)a",        "(*LIMIT_MATCH=1)a",
        "(?R)",     "(?C1)a",      "a{,3}",       "a{2}++",       "a{1,2}?",        "a{x}",
        R"(\)",     "[a",          "[a\\",        "a{2",          R"(\p{L)",        R"(\x{41)"}) {
    CAPTURE(pattern);
    CHECK_THROWS_AS(pcre2_syntax(pattern, "t"), Error);
  }
}

TEST_CASE("A pattern that PCRE2 refuses, or that can match nothing, is refused by name", "[text][law5]") {
  struct Row {
    std::string pattern;
    Code code;
    std::string says;
  };
  for (const Row& row : std::vector<Row>{{"(a", Code::malformed, "parenthesis"},
                                         {"a*", Code::unsupported, "never matches nothing"},
                                         {"a|", Code::unsupported, "never matches nothing"},
                                         {"[b-a]", Code::malformed, "range out of order"},
                                         {"*a", Code::malformed, "quantifier"},
                                         {"a\xFF", Code::malformed, "byte offset 1"},
                                         {std::string(5000, 'a'), Code::limit_exceeded, "4096"},
                                         {R"(\x{110000})", Code::malformed, "too large"},
                                         {R"(a{99999})", Code::malformed, "too big"}}) {
    CAPTURE(row.pattern);
    try {
      const Pattern p(row.pattern, "tokenizer.json: pattern");
      FAIL("accepted");
    } catch (const Error& e) {
      CAPTURE(e.what());
      CHECK(e.code() == row.code);
      CHECK(std::string(e.what()).find("tokenizer.json: pattern") == 0);
      CHECK(std::string(e.what()).find(row.says) != std::string::npos);
    }
  }
}

TEST_CASE("A match beyond its limits is an error, never a hang, and the scratch can be used again", "[text]") {
  const std::string text(200000, 'a');
  for (const PatternEngine engine : {PatternEngine::fastest, PatternEngine::interpreter}) {
    Pattern::Scratch scratch;
    for (const char* pattern : {"(?:a+)+[bc]", "(?:a|b|ab)*[cd]", "(?:(a)|b)*[cd]", "a.*.*.*[cd]|.", "(?=.*[cd])a|."}) {
      CAPTURE(pattern);
      const Pattern p(pattern, "test", engine);
      Pattern::Search search(p, scratch, text);
      try {
        while (search.next()) continue;
        FAIL_CHECK("searched to the end");
      } catch (const Error& e) {
        CHECK(e.code() == Code::limit_exceeded);
      }
    }
    const Pattern good("a+", "test", engine);
    Pattern::Search search(good, scratch, text);
    REQUIRE(search.next());
    CHECK(search.end() == text.size());
    CHECK_FALSE(search.next());
  }
}

TEST_CASE("A match that is too deep for the JIT's stack is found by the interpreter", "[text]") {
  // Each repeat of the group takes a frame of either engine; the interpreter's are kept in less space than 512 KiB
  // here.
  int found = 0;
  for (std::size_t n = 1000; n <= 4000; n += 500) {
    try {
      found += matches("(?:a|bc)+d", std::string(n, 'a') + "d").size() == 1 ? 1 : 0;
    } catch (const Error& e) {
      CHECK(e.code() == Code::limit_exceeded);
    }
  }
  CHECK(found > 0);
}

TEST_CASE("A match is the same whether it fits the first window or not", "[text]") {
  for (const PatternEngine engine : {PatternEngine::fastest, PatternEngine::interpreter}) {
    for (std::size_t n = 4090; n < 4102; ++n) {
      const std::string euros = [n] {
        std::string s;
        for (std::size_t i = 0; i < n / 3; ++i) s += "\xE2\x82\xAC";
        return s;
      }();
      CHECK(matches("a+|.", std::string(n, 'a') + "bcd", engine) == Strings{std::string(n, 'a'), "b", "c", "d"});
      CHECK(matches(R"(\s+(?!\S)|\s+|x)", std::string(n, ' ') + "xx", engine) ==
            Strings{std::string(n - 1, ' '), " ", "x", "x"});
      CHECK(matches("a+(?=b)|a", std::string(n, 'a') + std::string(9000, 'b'), engine) == Strings{std::string(n, 'a')});
      CHECK(matches("[^ab]+", euros + "b" + euros + "ab", engine) == Strings{euros, euros});
    }
  }
}

TEST_CASE("A long run of anything takes linear time and stays within the budget", "[text]") {
  for (const PatternEngine engine : {PatternEngine::fastest, PatternEngine::interpreter}) {
    for (const char c : {'a', ' ', '\n', '1', '='}) {
      std::string text(1 << 18, c);
      text.push_back('x');
      std::size_t bytes = 0;
      for (const std::string& m : matches(llama3, text, engine)) bytes += m.size();
      CHECK(bytes == text.size());
    }
  }
}
