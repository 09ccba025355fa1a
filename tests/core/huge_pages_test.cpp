// Memory on huge pages: what a std::pmr::memory_resource promises, and that what is freed is gone.

#include "catch.hpp"
#include "random.hpp"

#include <finteam/core/huge_pages.hpp>
#include <finteam/core/tensor.hpp>

#include <cstring>
#include <fstream>
#include <string>
#include <vector>

using namespace finteam;

namespace {

constexpr std::size_t page = HugePages::page_bytes;

#if defined(__linux__)
/// A line of /proc/self/status, in bytes.
std::size_t status(const std::string& key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(key + ":")) return std::stoul(line.substr(key.size() + 1)) * 1024;
  }
  return 0;
}
#endif

}  // namespace

TEST_CASE("blocks of any size and alignment are apart, aligned and the caller's until they are freed", "[core]") {
  struct Block {
    std::byte* data;
    std::size_t bytes, alignment;
    int value;
  };
  test::Random random(5);
  std::pmr::memory_resource* const memory = huge_pages();
  std::vector<Block> blocks;
  const auto check = [](const Block& b) {
    REQUIRE(reinterpret_cast<std::uintptr_t>(b.data) % b.alignment == 0);
    for (std::size_t i = 0; i < b.bytes; i += b.bytes < 4096 ? 1 : 997) {
      REQUIRE(b.data[i] == static_cast<std::byte>(b.value));
    }
    if (b.bytes != 0) REQUIRE(b.data[b.bytes - 1] == static_cast<std::byte>(b.value));
  };
  for (int round = 0; round < 200; ++round) {
    if (blocks.size() > 12) {
      const auto at = blocks.begin() + random.below(static_cast<std::int64_t>(blocks.size()));
      check(*at);
      memory->deallocate(at->data, at->bytes, at->alignment);
      blocks.erase(at);
    }
    // about the borders, and anything up to 8 MiB
    const std::size_t bytes = round % 3 == 0   ? page - 2 + static_cast<std::size_t>(random.below(5))
                              : round % 3 == 1 ? static_cast<std::size_t>(random.below(70'000))
                                               : static_cast<std::size_t>(random.below(8 << 20));
    const std::size_t alignment = round % 7 == 0 ? 2 * page : std::size_t{1} << random.below(13);
    auto* const data = static_cast<std::byte*>(memory->allocate(bytes, alignment));
    if (bytes >= page && alignment <= page) REQUIRE(reinterpret_cast<std::uintptr_t>(data) % page == 0);
    std::memset(data, round, bytes);
    blocks.push_back({data, bytes, alignment, round});
  }
  for (const Block& b : blocks) {
    check(b);
    memory->deallocate(b.data, b.bytes, b.alignment);
  }
}

TEST_CASE("memory on huge pages has no state", "[core]") {
  HugePages a;
  const HugePages b;
  REQUIRE(a == b);
  REQUIRE(a == *huge_pages());
  REQUIRE(a != *std::pmr::new_delete_resource());
  REQUIRE(huge_pages() == huge_pages());
  void* const data = a.allocate(3 * page, 64);
  huge_pages()->deallocate(data, 3 * page, 64);
}

TEST_CASE("more than there is is refused with bad_alloc", "[core][refused]") {
  for (const std::size_t bytes : {std::size_t{1} << 60, ~std::size_t{0}, ~std::size_t{0} - page}) {
    REQUIRE_THROWS_AS(huge_pages()->allocate(bytes, 64), std::bad_alloc);
  }
}

#if defined(__linux__)
TEST_CASE("large blocks go back to the system to the last page", "[core]") {
  const std::size_t before = status("VmSize");
  for (std::size_t i = 0; i < 50; ++i) {
    Buffer buffer(5 * page + i * 4097, huge_pages());
    std::memset(buffer.data(), 1, buffer.size());
    REQUIRE(status("VmSize") <= before + buffer.size() + 65536);
  }
  REQUIRE(status("VmSize") == before);
}
#endif
