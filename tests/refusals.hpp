// That bad input is refused, and how: by a call, or by the hostile files of one kind in tests/refused.
#pragma once

#include "catch.hpp"

#include <finteam/core/error.hpp>

#include <filesystem>
#include <functional>
#include <initializer_list>
#include <string>

namespace test {

/// The error that a call throws; the test fails if there is none.
inline finteam::Error error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const finteam::Error& e) {
    return e;
  }
  FAIL("nothing was thrown");
  return {finteam::Code::system, "", "", ""};
}

/// Its error has that code, says that, and what was expected and found.
inline void check_refused(const std::function<void()>& call, finteam::Code code, const std::string& says) {
  const finteam::Error e = error_of(call);
  CAPTURE(e.what(), says);
  CHECK(name(e.code()) == name(code));
  CHECK(std::string(e.what()).find(says) != std::string::npos);
  CHECK_FALSE(e.expected().empty());
  CHECK_FALSE(e.found().empty());
}

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
    check_refused([&] { read(entry.path()); }, expected->code, expected->says);
  }
  CHECK(found == list.size());
}

}  // namespace test
