#include <finteam/file/mapped_file.hpp>

#include <sys/stat.h>

#include <chrono>
#include <fstream>
#include <type_traits>

#include "file/support.hpp"

using finteam::Code;
using finteam::MappedFile;

TEST_CASE("A mapped file is the file's bytes", "[file]") {
  const test::Folder folder;
  const std::string bytes("one\0two\xFF", 8);
  const MappedFile file = MappedFile::open(folder.write("a", bytes));
  CHECK(file.text() == bytes);
  CHECK(file.bytes().size() == 8);
  CHECK(file.bytes()[7] == std::byte{0xFF});
  CHECK(file.path() == (folder / "a").string());
}

TEST_CASE("An empty file is a file of no bytes", "[file]") {
  const test::Folder folder;
  CHECK(MappedFile::open(folder.write("empty", "")).bytes().empty());
}

TEST_CASE("A mapping moves without its bytes moving", "[file]") {
  static_assert(!std::is_copy_constructible_v<MappedFile> && !std::is_copy_assignable_v<MappedFile>);
  const test::Folder folder;
  MappedFile a = MappedFile::open(folder.write("a", "alpha"));
  const std::byte* const address = a.bytes().data();
  MappedFile b = std::move(a);
  CHECK(b.bytes().data() == address);
  MappedFile c = MappedFile::open(folder.write("c", "gamma"));
  c = std::move(b);
  CHECK(c.text() == "alpha");
  CHECK(c.bytes().data() == address);
}

TEST_CASE("A symbolic link is followed to its file", "[file]") {
  const test::Folder folder;
  folder.write("blobs/1f3a", "weights");
  std::filesystem::create_symlink("blobs/1f3a", folder / "model.safetensors");
  CHECK(MappedFile::open(folder / "model.safetensors").text() == "weights");
}

TEST_CASE("What is not a regular file is not mapped", "[file][law5][refused]") {
  const test::Folder folder;
  test::require_refusal([&] { (void)MappedFile::open(folder / "absent"); }, Code::not_found, "absent: expected a file");
  test::require_refusal([&] { (void)MappedFile::open(folder.path()); }, Code::not_found, "a directory");
  test::require_refusal([&] { (void)MappedFile::open("/dev/null"); }, Code::not_found, "not a regular file");
  std::filesystem::create_symlink("nowhere", folder / "dangling");
  test::require_refusal([&] { (void)MappedFile::open(folder / "dangling"); }, Code::not_found, "no such file");
  std::filesystem::create_symlink("loop", folder / "loop");
  test::require_refusal([&] { (void)MappedFile::open(folder / "loop"); }, Code::system, "loop");
  folder.write("file", "x");
  test::require_refusal([&] { (void)MappedFile::open(folder / "file/below"); }, Code::not_found, "no such file");
  test::require_refusal([&] { (void)MappedFile::open(std::string("a\0b", 3)); }, Code::invalid_argument, "zero byte");
}

TEST_CASE("A pipe without a writer is refused and not waited for", "[file][law5][refused]") {
  const test::Folder folder;
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  test::require_refusal([&] { (void)MappedFile::open(folder / "pipe"); }, Code::not_found, "not a regular file");
}

TEST_CASE("A text file longer than its bound is not read", "[file][law5][refused]") {
  const test::Folder folder;
  folder.write("team.json", "12345");
  CHECK(finteam::read_text_file(folder / "team.json", 5) == "12345");
  test::require_refusal([&] { (void)finteam::read_text_file(folder / "team.json", 4); }, Code::limit_exceeded,
                        "team.json: expected at most 4 bytes, found 5");
}

TEST_CASE("A label is the file's name after its folder's", "[file]") {
  using finteam::detail::file_label;
  CHECK(file_label("/models/micro/model.safetensors") == "micro/model.safetensors");
  CHECK(file_label("/models/micro//./config.json") == "micro/config.json");
  CHECK(file_label("config.json") == "config.json");
  CHECK(file_label("./config.json") == "config.json");
  CHECK(file_label("../config.json") == "config.json");
  CHECK(file_label("/config.json") == "config.json");
}

TEST_CASE("A part of a mapping leaves this process's memory and comes back", "[file]") {
  const test::Folder folder;
  std::string bytes(std::size_t{8} << 20, '\0');
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 2654435761U >> 13);
  const MappedFile file = MappedFile::open(folder.write("large", bytes));
  const auto resident = [] {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("RssFile:")) return 1024 * std::stol(line.substr(8));
    }
    return 0L;
  };
  CHECK(file.text() == bytes);
  const long all = resident();
  file.release(file.bytes().subspan(1000, bytes.size() - 3000));
  const long left = resident();
  if (all > 0) CHECK(all - left > (7L << 20));
  CHECK(file.text() == bytes);

  // Parts too small to hold a page, and none at all.
  for (const std::size_t size : {0, 1, 4095, 4097, 9000}) file.release(file.bytes().subspan(4097, size));
  file.release({});
  file.fetch(file.bytes().subspan(5000, 100'000));
  file.fetch({});
  CHECK(file.text() == bytes);
}

TEST_CASE("A mapped file knows when it was changed", "[file]") {
  const test::Folder folder;
  const auto path = folder.write("a", "x");
  const MappedFile before = MappedFile::open(path);
  std::filesystem::last_write_time(path, std::filesystem::last_write_time(path) + std::chrono::nanoseconds(1500));
  CHECK(MappedFile::open(path).modified() - before.modified() == 1500);
  CHECK(MappedFile().modified() == 0);
}
