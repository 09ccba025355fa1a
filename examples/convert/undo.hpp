// What is made in a folder while a team.json is tried, and undone unless it is kept.
#pragma once

#include <finteam/core/error.hpp>
#include <finteam/file/file_writer.hpp>
#include <finteam/file/mapped_file.hpp>
#include <finteam/team/team_files.hpp>

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace convert {

namespace fs = std::filesystem;
using finteam::Code, finteam::Error;

/// A folder, made if it is not there, and links in it. What was made goes again unless it is kept.
class Links {
 public:
  /// force: links that lead elsewhere may be replaced.
  Links(fs::path folder, bool force)
      : folder_(std::move(folder)), force_(force), made_folder_(fs::create_directories(folder_)) {}
  Links(const Links&) = delete;
  Links& operator=(const Links&) = delete;
  ~Links() {
    std::error_code ignored;
    for (const fs::path& link : made_) fs::remove(link, ignored);
    if (made_folder_) fs::remove(folder_, ignored);  // if it is empty
  }
  void keep() noexcept {
    made_.clear();
    made_folder_ = false;
  }

  /// A path for team.json, whose paths stay in its folder: as it lies there, or through a link that is made there.
  [[nodiscard]] std::string inside(const fs::path& path, const std::string& name) {
    if (!fs::exists(path)) throw Error(Code::not_found, path.string(), "a file or a folder", "none");
    const fs::path there = fs::canonical(path), relative = there.lexically_relative(fs::canonical(folder_));
    if (!relative.empty() && *relative.begin() != "..") return relative.string();
    const fs::path link = folder_ / name;
    if (fs::path(name).filename() != name || name == "." || name == "..") {
      throw Error(Code::invalid_argument, "role", "a name that a link in " + folder_.string() + " can have", name);
    }
    if (fs::is_symlink(link) && fs::exists(link) && fs::canonical(link) == there) return name;
    if (finteam::detail::is_there(link)) {
      if (!force_ || !fs::is_symlink(link)) {
        throw Error(Code::invalid_argument, link.string(), "a free name, for a link to " + there.string(),
                    "something else of that name");
      }
      fs::remove(link);
    }
    fs::create_symlink(there, link);
    made_.push_back(link);
    return name;
  }

 private:
  fs::path folder_;
  bool force_, made_folder_;
  std::vector<fs::path> made_;
};

/// The file as it was, unless the new one is kept.
class OldFile {
 public:
  explicit OldFile(fs::path path) : path_(std::move(path)) {
    if (finteam::detail::is_there(path_)) text_ = finteam::read_text_file(path_, std::size_t{1} << 24);
  }
  OldFile(const OldFile&) = delete;
  OldFile& operator=(const OldFile&) = delete;
  ~OldFile() {
    if (kept_) return;
    try {
      if (text_) write(*text_);
      std::error_code ignored;
      if (!text_) fs::remove(path_, ignored);
    } catch (const Error&) {  // the disk's business
    }
  }
  void write(std::string_view text) const {
    finteam::FileWriter file(path_);
    file.write(text);
    file.commit();
  }
  void keep() noexcept { kept_ = true; }

 private:
  fs::path path_;
  std::optional<std::string> text_;
  bool kept_ = false;
};

}  // namespace convert
