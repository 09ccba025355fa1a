#include <finteam/file/file_writer.hpp>
#include <finteam/file/safetensors.hpp>
#include <finteam/file/safetensors_writer.hpp>

#include "file/support.hpp"

#include <set>

using finteam::Code;
using finteam::FileWriter;
using finteam::MappedFile;

namespace {

std::set<std::string> names(const test::Folder& folder) {
  std::set<std::string> all;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    all.insert(entry.path().filename().string());
  }
  return all;
}

}  // namespace

TEST_CASE("A file takes its name when it is whole", "[file]") {
  const test::Folder folder;
  folder.write("a", "old");
  const MappedFile old = MappedFile::open(folder / "a");
  FileWriter first(folder / "a"), second(folder / "a");
  first.write("one ");
  second.write("two ");
  CHECK(MappedFile::open(folder / "a").text() == "old");
  CHECK(names(folder).size() == 3);
  second.write("and more");
  first.commit();
  CHECK(MappedFile::open(folder / "a").text() == "one ");
  second.commit();
  CHECK(MappedFile::open(folder / "a").text() == "two and more");
  CHECK(names(folder) == std::set<std::string>{"a"});
  CHECK(old.text() == "old");
}

TEST_CASE("A file that is not finished leaves nothing", "[file]") {
  const test::Folder folder;
  {
    FileWriter file(folder / "a");
    file.write("half");
    CHECK(names(folder).size() == 1);
  }
  CHECK(names(folder).empty());
}

TEST_CASE("A file that cannot be written is refused", "[file][law5][refused]") {
  const test::Folder folder;
  test::require_refusal([&] { FileWriter(folder / "no/such"); }, Code::system, "no/such: expected a file that can be");
  std::filesystem::create_directories(folder / "taken/in");
  FileWriter file(folder / "taken");
  file.write("x");
  test::require_refusal([&] { file.commit(); }, Code::system, "taken: expected a file that can be written");
}

TEST_CASE("Data of any type are written and read as bytes, from a multiple of 64 on", "[file]") {
  const test::Folder folder;
  for (std::size_t longer = 0; longer < 70; ++longer) {
    const std::vector<finteam::TensorEntry> entries{{"q" + std::string(longer, 'x'), "U8", {3, 64}}, {"s", "U64", {2}}};
    const std::string header = finteam::safetensors_header(std::span(entries), {{"by", "a test"}});
    REQUIRE(header.size() % 64 == 0);
    const std::string data(3 * 64 + 16, 'd');
    const std::string all = header + data;
    const auto file = finteam::Safetensors::parse(test::as_bytes(all), "t");
    CHECK(file.metadata().at("by") == "a test");
    CHECK(file.header().size() == header.size());
    const finteam::index_t shape[] = {3, 64}, turned[] = {64, 3};
    const auto bytes = file.bytes(entries[0].name, "U8", shape);
    REQUIRE(bytes);
    CHECK(bytes->size() == 192);
    CHECK(reinterpret_cast<const char*>(bytes->data()) == all.data() + header.size());
    CHECK_FALSE(file.bytes(entries[0].name, "U8", turned));
    CHECK_FALSE(file.bytes(entries[0].name, "I8", shape));
    CHECK_FALSE(file.bytes("none", "U8", shape));
  }
}

TEST_CASE("A header of an unknown type or an endless shape is refused", "[file][law5][refused]") {
  const auto header = [](finteam::TensorEntry entry) {
    const std::vector<finteam::TensorEntry> entries{std::move(entry)};
    (void)finteam::safetensors_header(std::span(entries));
  };
  test::require_refusal([&] { header({"a", "U7", {1}}); }, Code::invalid_argument, "a: expected a known type");
  test::require_refusal([&] { header({"a", "U8", {1L << 62, 1L << 62}}); }, Code::invalid_argument, "a size that fits");
}
