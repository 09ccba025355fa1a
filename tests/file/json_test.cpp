#include <finteam/file/json_view.hpp>

#include <limits>

#include "file/support.hpp"

using namespace std::string_literals;
using finteam::Code;
using finteam::JsonFile;
using finteam::JsonLimits;
using finteam::JsonView;
using finteam::parse_json;

TEST_CASE("JSON of every type is read as it is written", "[file]") {
  const JsonFile file(R"( {"i":-7,"u":18446744073709551615,"f":1e5,"half":0.5,"t":true,"s":"é\u00e9\ud83d\ude00",
                          "n":null,"a":[1,[],{}],"o":{"k":"v"}} )",
                      "x.json");
  const JsonView root = file.root();
  CHECK(root.at("i").as_int(-10, 10) == -7);
  CHECK(root.at("u").as_unsigned() == std::numeric_limits<std::uint64_t>::max());
  CHECK(root.at("f").as_int(0, 100'000) == 100'000);
  CHECK(root.at("half").as_number() == 0.5);
  CHECK(root.at("t").as_bool());
  CHECK(root.at("s").as_string() == "éé😀");
  CHECK(root.at("n").is_null());
  CHECK_FALSE(root.find("n"));
  CHECK_FALSE(root.find("absent"));
  CHECK(root.at("a").size() == 3);
  CHECK(root.at("a")[0].as_int(0, 1) == 1);
  CHECK(root.at("o").at("k").where() == "x.json: o.k");
  CHECK(root.at("a")[1].where() == "x.json: a[1]");
  CHECK(root.int_or("absent", 5, 0, 9) == 5);
  CHECK(root.number_or("half", 2, 0, 1) == 0.5);
  CHECK(root.bool_or("n", true));
  CHECK(root.string_or("absent", "x") == "x");

  std::string keys;
  root.at("o").each_member([&](std::string_view key, const JsonView& v) { keys += key, keys += v.as_string(); });
  CHECK(keys == "kv");
  int total = 0;
  root.at("a").each([&](const JsonView&) { ++total; });
  CHECK(total == 3);
}

TEST_CASE("A bare value and a byte order mark are JSON", "[file]") {
  CHECK(parse_json("3", "x") == 3);
  CHECK(parse_json("\xEF\xBB\xBF{}", "x").is_object());
}

TEST_CASE("A refusal names file, key, what was expected and what was found", "[file]") {
  const JsonFile file(R"({"rope_scaling":{"factor":"x"},"a":[1,2.5,-1,1e300,18446744073709551615,[],{"k":1}]})",
                      "config.json");
  const JsonView root = file.root();
  const auto what = [](auto&& f) -> std::string {
    try {
      f();
    } catch (const finteam::Error& error) {
      return error.what();
    }
    return "nothing";
  };
  CHECK(what([&] { (void)root.at("rope_scaling").at("factor").as_number(); }) ==
        "config.json: rope_scaling.factor: expected a number, found \"x\"");
  CHECK(what([&] { (void)root.at("b"); }) == "config.json: expected key \"b\", found none");
  CHECK(what([&] { (void)root.at("a").at("b"); }) == "config.json: a: expected an object, found an array of 7");
  CHECK(what([&] { (void)root.size(); }) == "config.json: expected an array, found an object of 2 keys");
  CHECK(what([&] { (void)root.at("a")[1].as_int(0, 9); }) ==
        "config.json: a[1]: expected an integer from 0 to 9, found 2.5");
  CHECK(what([&] { (void)root.at("a")[2].as_unsigned(); }) ==
        "config.json: a[2]: expected a non-negative integer, found -1");
  CHECK(what([&] { (void)root.at("a")[3].as_int(0, 9); }).find("found 1e+300") != std::string::npos);
  CHECK(what([&] { (void)root.at("a")[4].as_int(0, 9); }).find("found 18446744073709551615") != std::string::npos);
  CHECK(what([&] { (void)root.at("a")[0].as_number(2, 3); }) ==
        "config.json: a[0]: expected a number from 2.0 to 3.0, found 1");
  CHECK(what([&] { (void)root.at("a")[0].as_string(); }) == "config.json: a[0]: expected a string, found 1");
  CHECK(what([&] { (void)root.at("a")[5].as_bool(); }) ==
        "config.json: a[5]: expected true or false, found an array of 0");
  CHECK(what([&] { (void)root.at("a")[7]; }) ==
        "config.json: a: expected an array of more than 7, found an array of 7");
}

TEST_CASE("JSON as deep as its limit is read, and one level deeper is not", "[file]") {
  const auto nested = [](std::size_t n) { return std::string(n, '[') + std::string(n, ']'); };
  CHECK(parse_json(nested(64), "x").is_array());
  test::require_refusal([&] { (void)parse_json(nested(65), "x"); }, Code::limit_exceeded, "64 levels");
  CHECK(parse_json("[[1]]", "x", JsonLimits{.depth = 2}).size() == 1);
  test::require_refusal([&] { (void)parse_json("[[{}]]", "x", JsonLimits{.depth = 2}); }, Code::limit_exceeded,
                        "2 lev");
}

TEST_CASE("JSON of as many values as its limit is read, and of one more is not", "[file]") {
  CHECK(parse_json("[1,2,3]", "x", JsonLimits{.values = 4}).size() == 3);
  test::require_refusal([&] { (void)parse_json("[1,2,3,4]", "x", JsonLimits{.values = 4}); }, Code::limit_exceeded,
                        "at most 4 JSON values");
  test::require_refusal([&] { (void)parse_json("[1,2]", "x", JsonLimits{.bytes = 4}); }, Code::limit_exceeded,
                        "at most 4 bytes");
}

TEST_CASE("A key may come again in another object", "[file]") {
  CHECK(parse_json(R"({"a":{"a":1},"b":[{"a":2},{"a":3}]})", "x")["b"][1]["a"] == 3);
}

TEST_CASE("Hostile bytes are shown on one line and cut", "[file]") {
  using finteam::detail::printable;
  CHECK(printable("plain é 😀 €") == "plain é 😀 €");
  CHECK(printable("a\nb\x1B[31m\x7F") == "a\\x0ab\\x1b[31m\\x7f");
  CHECK(printable("\xC0\x80\xFF\xE2\x82") == "\\xc0\\x80\\xff\\xe2\\x82");
  CHECK(printable("\xC2\x85|\xE2\x80\xA8") == "\\xc2\\x85|\\xe2\\x80\\xa8");
  CHECK(printable("\xED\xA0\x80") == "\\xed\\xa0\\x80");
  CHECK(printable("\xF0\x8F\xBF\xBF|\xF4\x90\x80\x80") == "\\xf0\\x8f\\xbf\\xbf|\\xf4\\x90\\x80\\x80");
  CHECK(printable("") == "");
  CHECK(printable(std::string(1000, 'x'), 10) == "xxxxxxxxxx...");
}
