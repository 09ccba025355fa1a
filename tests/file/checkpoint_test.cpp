#include <finteam/file/checkpoint.hpp>
#include <finteam/file/safetensors_writer.hpp>

#include "file/support.hpp"

using finteam::Checkpoint;
using finteam::Code;
using finteam::DType;
using finteam::index_t;
using finteam::TensorToWrite;

namespace {

/// A tensor [n] of f32 `first`, `first` + 1, …
struct Numbers {
  Numbers(std::string tensor_name, index_t n, float first) : name(std::move(tensor_name)) {
    for (index_t i = 0; i < n; ++i) values.push_back(first + static_cast<float>(i));
  }
  [[nodiscard]] TensorToWrite to_write() const {
    return {name, DType::f32, {static_cast<index_t>(values.size())}, std::as_bytes(std::span(values))};
  }
  std::string name;
  std::vector<float> values;
};

void write(const std::filesystem::path& path, const std::vector<Numbers>& tensors) {
  std::vector<TensorToWrite> out;
  for (const Numbers& t : tensors) out.push_back(t.to_write());
  std::filesystem::create_directories(path.parent_path());
  finteam::write_safetensors(path, out);
}

void write_index(const test::Folder& folder, std::string_view weight_map) {
  folder.write("micro/model.safetensors.index.json",
               R"({"metadata":{"total_size":1},"weight_map":)" + std::string(weight_map) + "}");
}

/// micro/ with a.weight in shard one, b.weight in two; an index that says `weight_map`.
void write_shards(const test::Folder& folder, std::string_view weight_map) {
  write(folder / "micro/one.safetensors", {{"a.weight", 3, 1}, {"extra", 1, 9}});
  write(folder / "micro/two.safetensors", {{"b.weight", 2, 5}, {"a.weight", 3, 100}});
  write_index(folder, weight_map);
}

}  // namespace

TEST_CASE("A checkpoint of one file gives its tensors", "[file]") {
  const test::Folder folder;
  write(folder / "micro/model.safetensors", {{"a.weight", 3, 1}, {"b.weight", 2, 5}});
  Checkpoint opened = Checkpoint::open(folder / "micro");
  const finteam::RawTensor* const before = opened.find("a.weight");
  const Checkpoint checkpoint = std::move(opened);
  CHECK(checkpoint.find("a.weight") == before);
  CHECK(checkpoint.names() == std::vector<std::string_view>{"a.weight", "b.weight"});
  CHECK(checkpoint.tensor("b.weight", {2})[1] == 6);
  CHECK(checkpoint.bytes() == 20);
  CHECK(checkpoint.where() == "micro/model.safetensors");
  CHECK(checkpoint.find("c") == nullptr);
}

TEST_CASE("A checkpoint of shards gives each tensor from the shard that its index names", "[file]") {
  const test::Folder folder;
  write_shards(folder, R"({"a.weight":"two.safetensors","b.weight":"two.safetensors"})");
  CHECK(Checkpoint::open(folder / "micro").tensor("a.weight")[0] == 100);
  write_index(folder, R"({"a.weight":"one.safetensors","b.weight":"two.safetensors"})");
  const Checkpoint checkpoint = Checkpoint::open(folder / "micro");
  CHECK(checkpoint.tensor("a.weight", {3})[0] == 1);
  CHECK(checkpoint.tensor("b.weight")[0] == 5);
  CHECK(checkpoint.where("b.weight") == "micro/two.safetensors: b.weight");
  CHECK(checkpoint.find("extra") == nullptr);  // in a shard, but not in the index
  CHECK(checkpoint.names().size() == 2);
}

TEST_CASE("A Hugging Face cache, made of symbolic links, is a checkpoint", "[file]") {
  const test::Folder folder;
  write(folder / "blobs/0a1b", {{"a.weight", 3, 1}});
  folder.write("blobs/2c3d", R"({"weight_map":{"a.weight":"model-00001-of-00001.safetensors"}})");
  std::filesystem::create_directories(folder / "snapshots/main");
  std::filesystem::create_symlink("../../blobs/0a1b", folder / "snapshots/main/model-00001-of-00001.safetensors");
  std::filesystem::create_symlink("../../blobs/2c3d", folder / "snapshots/main/model.safetensors.index.json");
  CHECK(Checkpoint::open(folder / "snapshots/main").tensor("a.weight", {3})[2] == 3);
}

TEST_CASE("Where one file and an index lie side by side, the one file is read", "[file]") {
  const test::Folder folder;
  write_shards(folder, R"({"a.weight":"two.safetensors"})");
  write(folder / "micro/model.safetensors", {{"a.weight", 1, 7}});
  CHECK(Checkpoint::open(folder / "micro").tensor("a.weight", {1})[0] == 7);
}

TEST_CASE("A tensor of another shape is refused with both shapes", "[file][law5][refused]") {
  const test::Folder folder;
  write(folder / "micro/model.safetensors", {{"model.layers.0.self_attn.q_proj.weight", 3, 1}});
  const Checkpoint checkpoint = Checkpoint::open(folder / "micro");
  test::require_refusal(
      [&] {
        (void)checkpoint.tensor("model.layers.0.self_attn.q_proj.weight", {3, 1});
      },
      Code::mismatch, "micro/model.safetensors: model.layers.0.self_attn.q_proj.weight: expected [3, 1], found [3]");
  test::require_refusal([&] { (void)checkpoint.tensor("model.layers.0.self_attn.q_proj.weight", {4}); }, Code::mismatch,
                        "expected [4], found [3]");
  test::require_refusal([&] { (void)checkpoint.tensor("lm_head.weight", {3}); }, Code::not_found,
                        "micro/model.safetensors: lm_head.weight: expected a tensor, found none");
}

TEST_CASE("A folder without weights is refused", "[file][law5][refused]") {
  const test::Folder folder;
  folder.write("micro/config.json", "{}");
  test::require_refusal([&] { (void)Checkpoint::open(folder / "micro"); }, Code::not_found,
                        "micro: expected model.safetensors or model.safetensors.index.json, found neither");
  test::require_refusal([&] { (void)Checkpoint::open(folder / "absent"); }, Code::not_found, "neither");
  std::filesystem::create_directories(folder / "quant/model.safetensors");
  test::require_refusal([&] { (void)Checkpoint::open(folder / "quant"); }, Code::not_found, "a directory");
}

TEST_CASE("A shard that is not a bare file name beside its index is refused", "[file][law5][refused]") {
  const test::Folder folder;
  const std::string outside = (folder / "outside.safetensors").string();
  write(outside, {{"a.weight", 3, 1}});
  write(folder / "micro/sub/in.safetensors", {{"a.weight", 3, 1}});
  const std::string shard = GENERATE_COPY(values<std::string>(
      {outside, "../outside.safetensors", "sub/in.safetensors", "sub\\\\in.safetensors", "./one.safetensors",
       "C:one.safetensors", "one.safetensors\\u0000", "one.safetensors\\u0000.safetensors", "..", ".", "",
       ".safetensors", "one.bin", "one.safetensors/", "one\\n.safetensors", "//host/share.safetensors"}));
  INFO(shard);
  write_shards(folder, R"({"a.weight":")" + shard + R"("})");
  test::require_refusal([&] { (void)Checkpoint::open(folder / "micro"); }, Code::malformed,
                        "model.safetensors.index.json: weight_map.a.weight: expected the bare name");
}

TEST_CASE("An index that lies about its shards is refused", "[file][law5][refused]") {
  const test::Folder folder;
  const auto refuses = [&](std::string_view map, Code code, std::string_view words) {
    write_shards(folder, map);
    test::require_refusal([&] { (void)Checkpoint::open(folder / "micro"); }, code, words);
  };
  refuses(R"({"a.weight":"one.safetensors","b.weight":"one.safetensors"})", Code::mismatch,
          "weight_map.b.weight: expected a tensor in one.safetensors, found none");
  refuses(R"({"a.weight":"three.safetensors"})", Code::not_found, "three.safetensors");
  refuses(R"({"a.weight":3})", Code::malformed, "weight_map.a.weight: expected a string, found 3");
  refuses(R"(["one.safetensors"])", Code::malformed, "weight_map: expected an object");
  refuses(R"({"a.weight":"one.safetensors","a.weight":"two.safetensors"})", Code::malformed, "\"a.weight\" twice");
  folder.write("micro/model.safetensors.index.json", R"({"metadata":{}})");
  test::require_refusal([&] { (void)Checkpoint::open(folder / "micro"); }, Code::not_found, "key \"weight_map\"");
  folder.write("micro/model.safetensors.index.json", R"({"weight_map":{"a.weight":"broken.safetensors"}})");
  folder.write("micro/broken.safetensors", "12345678");
  test::require_refusal([&] { (void)Checkpoint::open(folder / "micro"); }, Code::malformed,
                        "micro/broken.safetensors: expected a header of at most 0 bytes");
}
