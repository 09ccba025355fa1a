#include <finteam/text/bpe.hpp>
#include <finteam/text/byte_level.hpp>

#include "catch.hpp"

#include <array>
#include <chrono>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

using namespace finteam;

namespace {

/// Random merges over 256 bytes and what they make, as a table and as a map.
struct RandomMerges {
  RandomMerges(unsigned seed, std::int32_t letters, std::int32_t count) : table(static_cast<std::size_t>(count)) {
    std::mt19937 random(seed);
    for (std::int32_t b = 0; b < 256; ++b) bytes[static_cast<std::size_t>(b)] = b;
    std::map<std::string, std::int32_t> ids;
    std::vector<std::string> tokens(256);
    for (std::int32_t b = 0; b < 256; ++b)
      ids[tokens[static_cast<std::size_t>(b)] = std::string(1, static_cast<char>(b))] = b;
    const auto pick = [&]() -> std::int32_t {
      const auto fresh = static_cast<std::int32_t>(tokens.size()) - 256;
      const std::int32_t i = static_cast<std::int32_t>(random() % static_cast<unsigned>(letters + fresh));
      return i < letters ? 'a' + i : 256 + i - letters;
    };
    for (std::int32_t rank = 0; rank < count;) {
      const std::int32_t left = pick(), right = pick();
      if (map.count({left, right}) != 0) continue;
      const std::string both = tokens[static_cast<std::size_t>(left)] + tokens[static_cast<std::size_t>(right)];
      if (both.size() > 12) continue;
      const auto [at, fresh] = ids.emplace(both, static_cast<std::int32_t>(tokens.size()));
      if (fresh) tokens.push_back(both);
      map[{left, right}] = {rank, at->second};
      REQUIRE(table.add(left, right, {rank++, at->second}));
    }
  }

  std::array<std::int32_t, 256> bytes{};
  std::map<std::pair<std::int32_t, std::int32_t>, Merge> map;
  MergeTable table;
};

/// The definition: again and again, the leftmost pair of the lowest rank.
std::vector<std::int32_t> merge_by_definition(const std::string& word, const RandomMerges& merges) {
  std::vector<std::int32_t> ids(word.begin(), word.end());
  for (;;) {
    std::size_t best = ids.size();
    Merge merge;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto at = merges.map.find({ids[i], ids[i + 1]});
      if (at != merges.map.end() && (best == ids.size() || at->second.rank < merge.rank)) {
        best = i;
        merge = at->second;
      }
    }
    if (best == ids.size()) return ids;
    ids[best] = merge.id;
    ids.erase(ids.begin() + static_cast<index_t>(best) + 1);
  }
}

}  // namespace

TEST_CASE("Merging agrees with its definition on random words and merges", "[text]") {
  for (unsigned seed = 0; seed < 20; ++seed) {
    const RandomMerges merges(seed, 3, 60);
    WordMerger merger(40);
    std::mt19937 random(seed + 100);
    for (int round = 0; round < 100; ++round) {
      std::string word(1 + random() % 40, 'a');
      for (char& c : word) c = static_cast<char>('a' + random() % 3);
      std::vector<std::int32_t> ids = {-7};
      merger.append(word, merges.bytes, merges.table, ids);
      REQUIRE(ids[0] == -7);
      ids.erase(ids.begin());
      CAPTURE(seed, word);
      CHECK(ids == merge_by_definition(word, merges));
    }
  }
}

TEST_CASE("Of equal ranks the leftmost merges first", "[text]") {
  MergeTable merges(2);
  REQUIRE(merges.add('a', 'a', {0, 300}));
  REQUIRE(merges.add(300, 'a', {1, 301}));
  CHECK_FALSE(merges.add('a', 'a', {2, 302}));
  std::array<std::int32_t, 256> bytes{};
  for (std::int32_t b = 0; b < 256; ++b) bytes[static_cast<std::size_t>(b)] = b;
  WordMerger merger(8);
  std::vector<std::int32_t> ids;
  merger.append("aaaaa", bytes, merges, ids);
  CHECK(ids == std::vector<std::int32_t>{300, 301});  // aa aa a, then aa aaa
}

TEST_CASE("The table of merges finds every pair that it was given and no other", "[text]") {
  std::mt19937 random(3);
  std::map<std::pair<std::int32_t, std::int32_t>, std::int32_t> pairs;
  while (pairs.size() < 5000)
    pairs.emplace(std::pair{static_cast<int>(random() % 3000), static_cast<int>(random() % 3000)}, random() % 9999);
  MergeTable table(pairs.size());
  for (const auto& [pair, id] : pairs) REQUIRE(table.add(pair.first, pair.second, {1, id}));
  for (const auto& [pair, id] : pairs) {
    REQUIRE(table.find(pair.first, pair.second) != nullptr);
    CHECK(table.find(pair.first, pair.second)->id == id);
    const bool mirrored = pairs.count({pair.second, pair.first}) != 0;
    CHECK((table.find(pair.second, pair.first) != nullptr) == mirrored);
  }
}

TEST_CASE("A word of a quarter of a million equal letters merges in well under a second", "[text]") {
  MergeTable merges(10);
  std::array<std::int32_t, 256> bytes{};
  for (std::int32_t b = 0; b < 256; ++b) bytes[static_cast<std::size_t>(b)] = b;
  std::int32_t last = 'a';
  for (std::int32_t i = 0; i < 10; ++i) {
    REQUIRE(merges.add(last, last, {i, 256 + i}));
    last = 256 + i;
  }
  const std::string word(1 << 18, 'a');
  WordMerger merger(word.size());
  std::vector<std::int32_t> ids;
  const auto start = std::chrono::steady_clock::now();
  merger.append(word, bytes, merges, ids);
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(5));  // a quadratic way takes minutes
  CHECK(ids == std::vector<std::int32_t>(256, 265));
}

TEST_CASE("The byte-level alphabet names every byte once and reads its names back", "[text]") {
  CHECK(byte_level_bytes("Ġthe") == std::string(" the"));
  CHECK(byte_level_bytes("Ċ") == std::string("\n"));
  CHECK(byte_level_bytes("âĤ¬") == std::string("\xE2\x82\xAC"));
  CHECK(byte_level_bytes("") == std::string());
  CHECK_FALSE(byte_level_bytes(" the"));    // a blank has another name
  CHECK_FALSE(byte_level_bytes("\u0144"));  // the first character behind the alphabet
  CHECK_FALSE(byte_level_bytes("\xC4"));    // not UTF-8
  std::vector<bool> seen(256);
  for (const std::uint16_t c : detail::byte_level_alphabet()) {
    const std::string name = c < 0x80
                                 ? std::string(1, static_cast<char>(c))
                                 : std::string{static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 0x3F))};
    const auto byte = byte_level_bytes(name);
    REQUIRE(byte);
    REQUIRE(byte->size() == 1);
    seen[static_cast<unsigned char>((*byte)[0])] = true;
  }
  CHECK(std::count(seen.begin(), seen.end(), true) == 256);
}
