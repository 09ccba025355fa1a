// Writes a file that others see only when it is whole.
// Not here: that it survives a power failure: what it says is checked when it is read.
#pragma once

#include <finteam/core/error.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

[[nodiscard]] inline Error write_error(const std::filesystem::path& path, int error) {
  return {Code::system, path.string(), "a file that can be written", std::generic_category().message(error)};
}

}  // namespace detail

/// Writes a file under a name of its own beside `path`, which it takes when it is whole: whoever opens `path` sees the
/// old file or the new one, and several may write it at the same time. Without commit() nothing is left.
class FileWriter {
 public:
  /// Error(system): no file can be made there.
  explicit FileWriter(std::filesystem::path path) : path_(std::move(path)) {
    for (int i = 0; i < 1000 && file_ < 0; ++i) {
      unfinished_ = path_.string() + "." + std::to_string(::getpid()) + "-" + std::to_string(i) + ".unfinished";
      file_ = ::open(unfinished_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (file_ < 0 && errno != EEXIST) break;
    }
    if (file_ < 0) throw detail::write_error(path_, errno);
  }
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;
  ~FileWriter() {
    if (file_ >= 0) ::close(file_);
    if (!unfinished_.empty()) ::unlink(unfinished_.c_str());
  }

  /// Appends. Error(system).
  void write(std::span<const std::byte> data) {
    while (!data.empty()) {
      const ::ssize_t n = ::write(file_, data.data(), std::min(data.size(), std::size_t{1} << 30));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) throw detail::write_error(path_, n == 0 ? ENOSPC : errno);
      data = data.subspan(static_cast<std::size_t>(n));
    }
  }
  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }

  /// The file is whole: it takes its name. Error(system).
  void commit() {
    if (::close(std::exchange(file_, -1)) != 0 || ::rename(unfinished_.c_str(), path_.c_str()) != 0) {
      throw detail::write_error(path_, errno);
    }
    unfinished_.clear();
  }

 private:
  std::filesystem::path path_;
  std::string unfinished_;
  int file_ = -1;
};

}  // namespace finteam::inline FINTEAM_ABI
