#include <finteam/file/safetensors.hpp>
#include <finteam/file/safetensors_writer.hpp>

#include <random>

#include "file/support.hpp"

using finteam::DType;
using finteam::index_t;
using finteam::RawTensor;
using finteam::Safetensors;
using finteam::TensorToWrite;

namespace {

std::vector<index_t> shape_of(const RawTensor& t) { return {t.shape.begin(), t.shape.end()}; }

}  // namespace

TEST_CASE("A hand-made file gives its tensors, shapes, values and metadata", "[file]") {
  std::string bytes =
      test::safetensors(R"({"__metadata__":{"format":"pt"},"w":)" + test::entry("F32", "[2,1]", "[0,8]") + R"(,"b":)" +
                        test::entry("BF16", "[1]", "[8,10]") + "}");
  const float values[] = {1.5F, -2.25F};
  bytes.append(reinterpret_cast<const char*>(values), 8);
  bytes.append("\x80\x3F", 2);  // 1.0 as bf16
  const Safetensors file = Safetensors::parse(test::as_bytes(bytes), "x.safetensors");
  CHECK(file.names() == std::vector<std::string_view>{"b", "w"});
  CHECK(file.metadata().at("format") == "pt");
  CHECK(file.bytes() == 10);
  const RawTensor w = file.tensor("w");
  CHECK(w.dtype == DType::f32);
  CHECK(shape_of(w) == std::vector<index_t>{2, 1});
  CHECK(w[0] == 1.5F);
  CHECK(w[1] == -2.25F);
  CHECK(file.tensor("b")[0] == 1.0F);
  CHECK(file.find("absent") == nullptr);
  CHECK_FALSE(file.contains("__metadata__"));
}

TEST_CASE("What the writer writes, the reader reads, bit for bit", "[file]") {
  const test::Folder folder;
  std::mt19937 random(7);
  std::vector<std::vector<std::byte>> data;
  std::vector<TensorToWrite> tensors;
  const std::vector<std::vector<index_t>> shapes = {{}, {3}, {4, 5}, {2, 0, 3}, {2, 3, 4}, {1, 1, 1, 7}};
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (const auto& shape : shapes) {
      std::uint64_t bytes = 0;
      REQUIRE(finteam::detail::checked_bytes(std::span<const index_t>(shape), finteam::bytes_of(dtype), bytes));
      data.emplace_back(bytes);
      for (auto& b : data.back()) b = static_cast<std::byte>(random());
      const std::string name = "tensor \"" + std::to_string(tensors.size()) + "\" é";
      tensors.push_back({name, dtype, shape, data.back()});
    }
  }
  finteam::write_safetensors(folder / "t.safetensors", tensors);
  Safetensors opened = Safetensors::open(folder / "t.safetensors");
  const RawTensor* const before = opened.find(tensors[2].name);
  const Safetensors file = std::move(opened);  // what was given out must stay good
  REQUIRE(before == file.find(tensors[2].name));
  REQUIRE(file.names().size() == tensors.size());
  for (const TensorToWrite& t : tensors) {
    const RawTensor raw = file.tensor(t.name);
    INFO(t.name);
    CHECK(raw.dtype == t.dtype);
    CHECK(shape_of(raw) == t.shape);
    REQUIRE(std::equal(t.data.begin(), t.data.end(), raw.data));
  }
}

TEST_CASE("Data that no alignment holds for are read all the same", "[file]") {
  const float value = 0.7853982F;
  std::string bytes = test::safetensors("{\"w\":" + test::entry("F32", "[1]", "[0,4]") + "}");
  bytes.append(reinterpret_cast<const char*>(&value), 4);
  for (std::size_t shift = 0; shift < 8; ++shift) {
    const std::string moved = std::string(shift, 'x') + bytes;
    const Safetensors file = Safetensors::parse(test::as_bytes(moved).subspan(shift), "x");
    CHECK(file.tensor("w")[0] == value);
  }
}

TEST_CASE("Legal but rare: no tensors, a scalar, empty tensors, names in any order, padding", "[file]") {
  CHECK(Safetensors::parse(test::as_bytes(test::safetensors("{}")), "x").names().empty());
  CHECK(Safetensors::parse(test::as_bytes(test::safetensors("{}     \n ")), "x").bytes() == 0);
  const std::string bytes = test::safetensors(R"({"z":)" + test::entry("F32", "[]", "[0,4]") + R"(,"empty":)" +
                                                  test::entry("F32", "[0]", "[4,4]") + R"(,"none":)" +
                                                  test::entry("F16", "[3,0,2]", "[0,0]") + R"(,"a":)" +
                                                  test::entry("F16", "[1]", "[4,6]") + "}",
                                              6);
  const Safetensors file = Safetensors::parse(test::as_bytes(bytes), "x");
  CHECK(file.tensor("z").shape.empty());
  CHECK(file.tensor("z").size() == 1);
  CHECK(file.tensor("empty").size() == 0);
  CHECK(file.tensor("none").size() == 0);
  CHECK(file.tensor("a").data == file.tensor("z").data + 4);
}

TEST_CASE("A tensor of a type that this build cannot use hinders only who asks for it", "[file]") {
  const std::string bytes = test::safetensors(
      R"({"ids":)" + test::entry("I64", "[2]", "[0,16]") + R"(,"w":)" + test::entry("F32", "[1]", "[16,20]") + "}", 20);
  const Safetensors file = Safetensors::parse(test::as_bytes(bytes), "x.safetensors");
  CHECK(file.tensor("w").size() == 1);
  CHECK(file.contains("ids"));
  test::require_refusal([&] { (void)file.tensor("ids"); }, finteam::Code::unsupported,
                        "x.safetensors: ids: expected F32, F16 or BF16, found I64");
  test::require_refusal([&] { (void)file.find("ids"); }, finteam::Code::unsupported, "I64");
}

TEST_CASE("A tensor that is not there is named with its file", "[file][law5][refused]") {
  const Safetensors file = Safetensors::parse(test::as_bytes(test::safetensors("{}")), "micro/model.safetensors");
  test::require_refusal([&] { (void)file.tensor("q_proj.weight"); }, finteam::Code::not_found,
                        "micro/model.safetensors: q_proj.weight: expected a tensor, found none");
}

TEST_CASE("A file of as many tensors as the limit is read, and of one more is not", "[file][law5][refused]") {
  const auto file_of = [](std::size_t n) {
    std::string header = "{";
    for (std::size_t i = 0; i < n; ++i) {
      header += (i != 0 ? ",\"" : "\"") + std::to_string(i) + "\":" + test::entry("F32", "[0]", "[0,0]");
    }
    return test::safetensors(header + "}");
  };
  CHECK(Safetensors::parse(test::as_bytes(file_of(100'000)), "x").names().size() == 100'000);
  test::require_refusal([&] { (void)Safetensors::parse(test::as_bytes(file_of(100'001)), "x"); },
                        finteam::Code::limit_exceeded, "at most 100000 tensors");
}

TEST_CASE("Every cut of a good file is refused", "[file][law5][refused]") {
  const std::string bytes = test::safetensors(
      R"({"w":)" + test::entry("F32", "[3]", "[0,12]") + R"(,"b":)" + test::entry("BF16", "[2]", "[12,16]") + "}", 16);
  CHECK_NOTHROW(Safetensors::parse(test::as_bytes(bytes), "x"));
  for (std::size_t n = 0; n < bytes.size(); ++n) {
    INFO(n);
    test::require_refusal([&] { (void)Safetensors::parse(test::as_bytes(bytes).first(n), "x"); },
                          finteam::Code::malformed, "expected");
  }
}

TEST_CASE("The writer refuses what the reader would", "[file][law5][refused]") {
  const std::vector<std::byte> data(8, std::byte{42});
  const auto write = [&](std::vector<TensorToWrite> tensors) { (void)finteam::safetensors_header(tensors); };
  using finteam::Code;
  test::require_refusal(
      [&] {
        write({{"w", DType::f32, {3}, data}});
      },
      Code::invalid_argument, "w: expected the bytes of [3], found 8");
  test::require_refusal([&] { write({{"w", DType::f32, {-2}, data}}); }, Code::invalid_argument, "[-2]");
  test::require_refusal(
      [&] {
        write({{"w", DType::f32, {2}, data}, {"w", DType::f32, {2}, data}});
      },
      Code::invalid_argument, "name of its own");
  test::require_refusal([&] { write({{"__metadata__", DType::f32, {2}, data}}); }, Code::invalid_argument, "taken");
  test::require_refusal([&] { write({{"\xFF", DType::f32, {2}, data}}); }, Code::invalid_argument, "UTF-8");
  const test::Folder folder;
  test::require_refusal([&] { finteam::write_safetensors(folder / "no/such/folder", {}); }, Code::system,
                        "a file that can be written");
}
