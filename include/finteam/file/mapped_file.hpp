// A file's bytes, read-only, by mmap: nothing is read before it is touched, and processes share the pages.
// Not here: what the bytes mean. Whoever shortens a file while it is mapped ends its readers (SIGBUS), as with any
// mmap: replace model files by renaming, never in place.
#pragma once

#include <finteam/core/checked.hpp>
#include <finteam/core/error.hpp>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// "micro/model.safetensors": a file's name after its folder's, as errors say it.
[[nodiscard]] inline std::string file_label(const std::filesystem::path& path) {
  const std::string folder = path.lexically_normal().parent_path().filename().string();
  const std::string file = path.filename().string();
  return folder.empty() || folder == "." || folder == ".." ? file : folder + '/' + file;
}

/// A file descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int value) noexcept : value_(value) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  [[nodiscard]] int get() const noexcept { return value_; }

 private:
  int value_;
};

/// The Error for a failed call on `path`, out of errno.
[[nodiscard]] inline Error file_error(const std::string& path, int error) {
  const bool absent = error == ENOENT || error == ENOTDIR;
  return {absent ? Code::not_found : Code::system, path, "a file that can be read",
          absent ? "no such file" : std::generic_category().message(error)};
}

}  // namespace detail

/// A read-only mapping of a whole file. Moves, never copies; the bytes stay where they are when it moves.
class MappedFile {
 public:
  /// Symbolic links are followed; an empty file is a file.
  /// Error(not_found): no such file, or it is a directory, device, pipe or socket. Error(system): it cannot be read.
  [[nodiscard]] static MappedFile open(const std::filesystem::path& path) {
    MappedFile file;
    file.path_ = path.string();
    if (file.path_.find('\0') != std::string::npos) {
      throw Error(Code::invalid_argument, "path", "no zero byte in it", "one");
    }
    // Without O_NONBLOCK the opening of a pipe would wait for its writer.
    const detail::Descriptor descriptor(::open(file.path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    struct ::stat facts {};
    if (descriptor.get() < 0 || ::fstat(descriptor.get(), &facts) != 0) throw detail::file_error(file.path_, errno);
    if (!S_ISREG(facts.st_mode)) {
      throw Error(Code::not_found, file.path_, "a file",
                  S_ISDIR(facts.st_mode) ? "a directory" : "something that is not a regular file");
    }
    if (!std::in_range<index_t>(facts.st_size) || facts.st_size < 0) {
      throw Error(Code::limit_exceeded, file.path_, "a size that can be addressed", std::to_string(facts.st_size));
    }
    if (facts.st_size == 0) return file;
    const auto size = static_cast<std::size_t>(facts.st_size);
    void* const data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor.get(), 0);
    if (data == MAP_FAILED) throw detail::file_error(file.path_, errno);
    file.data_ = data;
    file.size_ = size;
    file.modified_ = std::int64_t{facts.st_mtim.tv_sec} * 1'000'000'000 + facts.st_mtim.tv_nsec;
#if defined(MADV_HUGEPAGE)
    ::madvise(data, size, MADV_HUGEPAGE);  // a wish: it is read in larger parts, and mapped with fewer entries
#endif
    return file;
  }

  MappedFile() noexcept = default;
  MappedFile(MappedFile&& other) noexcept
      : path_(std::move(other.path_)),
        data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        modified_(other.modified_) {}
  MappedFile& operator=(MappedFile&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(modified_, other.modified_);
    return *this;
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile() {
    if (data_ != nullptr) ::munmap(data_, size_);
  }

  [[nodiscard]] std::span<const std::byte> bytes() const noexcept {
    return {static_cast<const std::byte*>(data_), size_};
  }
  [[nodiscard]] std::string_view text() const noexcept { return {static_cast<const char*>(data_), size_}; }
  /// The path that it was opened by.
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  /// When the file's contents were last changed, as it says itself: nanoseconds since 1970; 0 for an empty file.
  [[nodiscard]] std::int64_t modified() const noexcept { return modified_; }

  /// Reads `part`, some of bytes(), into memory, where the system can be asked to; else its pages come one by one as
  /// they are touched.
  void fetch([[maybe_unused]] std::span<const std::byte> part) const noexcept {
#if defined(MADV_POPULATE_READ)
    if (!part.empty()) advise(part, page_bytes(), MADV_POPULATE_READ);
#endif
  }
  /// Takes the pages that lie wholly in `part` out of this process's memory: they come back when they are touched.
  void release(std::span<const std::byte> part) const noexcept {
    const std::size_t page = page_bytes(), past = reinterpret_cast<std::uintptr_t>(part.data()) % page;
    const std::size_t before = past == 0 ? 0 : page - past;
    if (part.size() > before + page) {
      const std::size_t whole = (part.size() - before) / page * page;
      advise(part.subspan(before, whole), page, MADV_DONTNEED);
    }
  }

 private:
  static std::size_t page_bytes() noexcept { return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); }
  /// From the beginning of the first page of `part`.
  static void advise(std::span<const std::byte> part, std::size_t page, int advice) noexcept {
    const std::size_t past = reinterpret_cast<std::uintptr_t>(part.data()) % page;
    ::madvise(const_cast<std::byte*>(part.data()) - past, part.size() + past, advice);
  }

  std::string path_;
  void* data_ = nullptr;
  std::size_t size_ = 0;
  std::int64_t modified_ = 0;
};

/// A whole file as a string. Errors as MappedFile::open, and limit_exceeded if it is longer than max_bytes.
[[nodiscard]] inline std::string read_text_file(const std::filesystem::path& path, std::size_t max_bytes) {
  const MappedFile file = MappedFile::open(path);
  if (file.text().size() > max_bytes) {
    throw Error(Code::limit_exceeded, detail::file_label(path), "at most " + std::to_string(max_bytes) + " bytes",
                std::to_string(file.text().size()));
  }
  return std::string(file.text());
}

}  // namespace finteam::inline FINTEAM_ABI
