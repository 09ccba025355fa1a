// The hostile files of one kind in tests/refused, and how each is to be refused.
#pragma once

#include "catch.hpp"

#include <finteam/core/error.hpp>

#include <filesystem>
#include <functional>
#include <initializer_list>
#include <string>

namespace test {

/// A file of that name, without its kind before it and .json behind it.
struct RefusedFile {
  const char* name;
  finteam::Code code;
  const char* says;  ///< a part of what()
};

/// Reads every file KIND_*.json; each must be in the list and refused as it says, and all of the list must be there.
inline void check_refused_files(const std::string& kind, std::initializer_list<RefusedFile> list,
                                const std::function<void(const std::filesystem::path&)>& read) {
  std::size_t found = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(FINTEAM_TEST_DATA) / "refused")) {
    const std::string file = entry.path().filename().string();
    if (!file.starts_with(kind + "_") || !file.ends_with(".json")) continue;
    CAPTURE(file);
    const RefusedFile* expected = nullptr;
    for (const RefusedFile& r : list) {
      if (file == kind + "_" + r.name + ".json") expected = &r;
    }
    REQUIRE(expected != nullptr);
    ++found;
    try {
      read(entry.path());
      FAIL_CHECK("was not refused");
    } catch (const finteam::Error& e) {
      CAPTURE(e.what(), expected->says);
      CHECK(name(e.code()) == name(expected->code));
      CHECK(std::string(e.what()).find(expected->says) != std::string::npos);
      CHECK(std::string(e.what()).size() < 1000);
    }
  }
  CHECK(found == list.size());
}

}  // namespace test
