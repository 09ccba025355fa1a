// XXH64 against values of the reference implementation, and that no byte is passed over.

#include "catch.hpp"
#include "random.hpp"

#include <finteam/core/hash.hpp>

#include <set>
#include <string_view>
#include <vector>

using namespace finteam;

namespace {

std::uint64_t hash_of(std::string_view s) { return xxh64(std::as_bytes(std::span(s.data(), s.size()))); }

}  // namespace

TEST_CASE("XXH64 has the values of its reference implementation", "[core]") {
  CHECK(hash_of("") == 0xEF46DB3751D8E999U);
  CHECK(hash_of("a") == 0xD24EC4F1A98C6E5BU);
  CHECK(hash_of("abc") == 0x44BC2CF5AD770999U);
  CHECK(hash_of("Nobody inspects the spammish repetition") == 0xFBCEA83C8A378BF1U);
}

TEST_CASE("every bit of every length changes the hash", "[core]") {
  test::Random random(9);
  std::set<std::uint64_t> seen;
  std::size_t count = 0;
  for (std::size_t n = 0; n < 100; ++n) {
    std::vector<std::byte> bytes(n);
    for (auto& b : bytes) b = static_cast<std::byte>(random.bits());
    seen.insert(xxh64(bytes));
    ++count;
    for (std::size_t i = 0; i < n; ++i) {
      const auto bit = static_cast<std::byte>(1U << random.below(8));
      bytes[i] ^= bit;
      seen.insert(xxh64(bytes));
      ++count;
      bytes[i] ^= bit;
    }
  }
  CHECK(seen.size() == count);
}
