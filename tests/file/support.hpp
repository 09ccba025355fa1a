// What the tests of this room share: a folder that removes itself, safetensors built byte by byte, the look of a
// refusal.
#pragma once

#include <finteam/core/error.hpp>

#include "catch.hpp"

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace test {

/// A fresh folder under the system's temporary one; gone with its contents at the end.
class Folder {
 public:
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "finteam-XXXXXX").string();
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

  std::filesystem::path write(std::string_view name, std::string_view bytes) const {
    std::filesystem::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return path_ / name;
  }

 private:
  std::filesystem::path path_;
};

/// u64, little-endian.
inline std::string length_bytes(std::uint64_t n) {
  std::string s;
  for (int i = 0; i < 8; ++i, n >>= 8) s += static_cast<char>(n & 0xFFU);
  return s;
}

/// [length][header][data_bytes bytes of no meaning]
inline std::string safetensors(std::string_view header, std::size_t data_bytes = 0) {
  std::string s = length_bytes(header.size()) + std::string(header);
  for (std::size_t i = 0; i < data_bytes; ++i) s += static_cast<char>(i * 37 + 11);
  return s;
}

/// {"dtype":…,"shape":…,"data_offsets":…}, each given as JSON.
inline std::string entry(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return R"({"dtype":")" + std::string(dtype) + R"(","shape":)" + std::string(shape) + R"(,"data_offsets":)" +
         std::string(offsets) + '}';
}

inline std::span<const std::byte> as_bytes(std::string_view s) {
  return std::as_bytes(std::span<const char>(s.data(), s.size()));
}

/// f() must throw an Error of that code whose words hold `words`.
template <class F>
void require_refusal(F&& f, finteam::Code code, std::string_view words) {
  try {
    f();
  } catch (const finteam::Error& error) {
    INFO(error.what());
    CHECK(finteam::name(error.code()) == finteam::name(code));
    CHECK(std::string_view(error.what()).find(words) != std::string_view::npos);
    CHECK(std::string_view(error.what()).size() < 1000);
    return;
  }
  FAIL("it was accepted");
}

}  // namespace test
