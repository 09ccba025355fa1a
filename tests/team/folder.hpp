// A team's folder for a test: the golden team's files behind symbolic links, with a team.json that the test changes.
#pragma once

#include <finteam/file/json_view.hpp>
#include <finteam/file/mapped_file.hpp>

#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>

namespace test {

namespace fs = std::filesystem;

/// A new empty folder, gone with its object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    static std::atomic<int> count{0};
    path_ = fs::temp_directory_path() / ("finteam-test-" + std::to_string(getpid()) + "-" + std::to_string(count++));
    fs::create_directories(path_);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  [[nodiscard]] const fs::path& path() const noexcept { return path_; }

 private:
  fs::path path_;
};

inline void write(const fs::path& file, const std::string& text) {
  fs::remove(file);  // never through a link
  std::ofstream(file, std::ios::binary) << text;
}

inline fs::path golden_team() { return fs::path(FINTEAM_TEST_DATA) / "goldens" / "team"; }

/// The golden team; `change` gets its team.json before it is written.
class TeamFolder {
 public:
  template <class Change>
  explicit TeamFolder(Change&& change) {
    for (const auto& entry : fs::directory_iterator(golden_team())) {
      fs::create_symlink(entry.path(), path() / entry.path().filename());
    }
    finteam::Json json =
        finteam::parse_json(finteam::MappedFile::open(golden_team() / "team.json").text(), "team.json");
    change(json);
    write(path() / "team.json", json.dump());
  }
  TeamFolder() : TeamFolder([](finteam::Json&) {}) {}

  /// Makes a role's folder a real one, so that its files can be changed: each file a link.
  void unlink_role(const std::string& role) const {
    fs::remove(path() / role);
    fs::create_directory(path() / role);
    for (const auto& entry : fs::directory_iterator(golden_team() / role)) {
      fs::create_symlink(entry.path(), path() / role / entry.path().filename());
    }
  }

  [[nodiscard]] const fs::path& path() const noexcept { return folder_.path(); }

 private:
  TemporaryFolder folder_;
};

}  // namespace test
