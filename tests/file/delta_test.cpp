#include <finteam/file/delta.hpp>
#include <finteam/file/delta_writer.hpp>
#include <finteam/file/safetensors_writer.hpp>

#include "file/support.hpp"
#include "random.hpp"
#include "refusals.hpp"

#include <cmath>

using finteam::BaseCheck;
using finteam::Checkpoint;
using finteam::Code;
using finteam::DeltaCheckpoint;
using finteam::DeltaOptions;
using finteam::DeltaPart;
using finteam::DeltaScales;
using finteam::DType;
using finteam::Format;
using finteam::index_t;

namespace {

struct Tensor {
  std::string name;
  std::vector<index_t> shape;
  std::vector<float> values;
};

/// A base, or what it became: two matrices, a norm, a head.
std::vector<Tensor> model(std::uint64_t seed) {
  test::Random random(seed);
  return {{"a.proj", {5, 9}, random.floats(45)},
          {"b.proj", {3, 16}, random.floats(48)},
          {"norm", {4}, random.floats(4)},
          {"head", {2, 3}, random.floats(6)}};
}

void write(const std::filesystem::path& path, const std::vector<Tensor>& tensors) {
  std::vector<finteam::TensorToWrite> out;
  for (const Tensor& t : tensors) out.push_back({t.name, DType::f32, t.shape, std::as_bytes(std::span(t.values))});
  std::filesystem::create_directories(path.parent_path());
  finteam::write_safetensors(path, out);
}

DeltaPart part(std::string_view name) {
  return name.ends_with("proj") ? DeltaPart::low_bit : name == "head" ? DeltaPart::base : DeltaPart::whole;
}

/// A base in base/, what it became in tuned/, in another order, and the difference in delta/.
struct Pair {
  test::Folder folder;
  std::vector<Tensor> before = model(1), after = model(2);

  explicit Pair(const DeltaOptions& options = {.part = part}) {
    write(folder / "base/model.safetensors", before);
    write(folder / "tuned/model.safetensors", after);
    finteam::write_delta(base(), tuned(), folder / "delta", options);
  }
  [[nodiscard]] Checkpoint base() const { return Checkpoint::open(folder / "base"); }
  [[nodiscard]] Checkpoint tuned() const { return Checkpoint::open(folder / "tuned"); }
  [[nodiscard]] DeltaCheckpoint open(BaseCheck check = BaseCheck::headers) const {
    return DeltaCheckpoint::open(folder / "delta", base(), check);
  }
};

}  // namespace

TEST_CASE("A difference that was written is read as it was rounded", "[file]") {
  const Format format = GENERATE(Format::int1, Format::int2);
  const DeltaScales scales = GENERATE(DeltaScales::row, DeltaScales::matrix);
  std::vector<finteam::WrittenDelta> written;
  const Pair pair({.format = format, .scales = scales, .part = part, .written = [&](const finteam::WrittenDelta& w) {
                     written.push_back(w);
                   }});
  const DeltaCheckpoint delta = pair.open(BaseCheck::contents);
  CHECK(delta.config().format == format);
  CHECK(delta.config().scales == scales);
  REQUIRE(delta.deltas().size() == 2);
  REQUIRE(written.size() == 2);
  for (std::size_t t = 0; t < 2; ++t) {
    const Tensor &before = pair.before[t], &after = pair.after[t];
    const finteam::RawDelta* const raw = delta.find(before.name);
    REQUIRE(raw != nullptr);
    REQUIRE(raw->n == before.shape[0]);
    REQUIRE(raw->k == before.shape[1]);
    CHECK(raw->format == format);
    CHECK(raw->scale_count == (scales == DeltaScales::row ? raw->n : 1));
    std::vector<float> d(after.values);
    for (std::size_t i = 0; i < d.size(); ++i) d[i] -= before.values[i];
    double errors = 0;
    for (index_t i = 0; i < raw->n; ++i) {
      const auto row = std::span(d).subspan(static_cast<std::size_t>(i * raw->k), static_cast<std::size_t>(raw->k));
      const float scale = finteam::fit_delta_scale(format, scales == DeltaScales::row ? row : std::span(d));
      CHECK(raw->scale(i) == scale);
      for (index_t j = 0; j < raw->k; ++j) {
        const float x = row[static_cast<std::size_t>(j)], y = (*raw)(i, j);
        CHECK((x > 0) == (y > 0));
        errors += std::pow(static_cast<double>(x) - static_cast<double>(y), 2);
      }
    }
    CHECK(written[t].name == before.name);
    CHECK(std::abs(written[t].error.errors - errors) < 1e-4);
  }
  REQUIRE(delta.whole().size() == 1);
  const finteam::RawTensor* const norm = delta.find_whole("norm");
  REQUIRE(norm != nullptr);
  for (index_t i = 0; i < 4; ++i) CHECK((*norm)[i] == pair.after[2].values[static_cast<std::size_t>(i)]);
  CHECK(delta.find("norm") == nullptr);
  CHECK(delta.find_whole("head") == nullptr);
  const DeltaCheckpoint moved = pair.open();
  CHECK(moved.find("a.proj")->n == 5);
}

TEST_CASE("A tensor that did not change is not kept", "[file]") {
  const test::Folder folder;
  std::vector<Tensor> before = model(1), after = model(2);
  after[2] = before[2];
  write(folder / "base/model.safetensors", before);
  write(folder / "tuned/model.safetensors", after);
  const Checkpoint base = Checkpoint::open(folder / "base");
  finteam::write_delta(base, Checkpoint::open(folder / "tuned"), folder / "delta", {});
  const DeltaCheckpoint delta = DeltaCheckpoint::open(folder / "delta", base);
  CHECK(delta.find_whole("norm") == nullptr);
  CHECK(delta.whole().size() == 3);
  CHECK(delta.deltas().empty());
}

TEST_CASE("A base's hashes do not depend on its files, and see names, shapes, types and bytes", "[file]") {
  const test::Folder folder;
  std::vector<Tensor> tensors = model(1);
  const auto hashes = [&](const std::string& name) {
    write(folder / (name + "/model.safetensors"), tensors);
    const Checkpoint c = Checkpoint::open(folder / name);
    return std::pair(header_hash(c), contents_hash(c));
  };
  const auto first = hashes("a");
  std::swap(tensors[0], tensors[3]);
  CHECK(hashes("b") == first);
  std::filesystem::create_directories(folder / "s");
  write(folder / "s/one.safetensors", {tensors[0], tensors[1]});
  write(folder / "s/two.safetensors", {tensors[2], tensors[3]});
  folder.write("s/model.safetensors.index.json",
               R"({"weight_map":{"head":"one.safetensors","b.proj":"one.safetensors","norm":"two.safetensors",)"
               R"("a.proj":"two.safetensors"}})");
  const Checkpoint sharded = Checkpoint::open(folder / "s");
  CHECK(header_hash(sharded) == first.first);
  CHECK(contents_hash(sharded) == first.second);
  tensors[2].values[1] += 1;
  const auto bytes = hashes("c");
  CHECK(bytes.first == first.first);
  CHECK(bytes.second != first.second);
  tensors[1].shape = {16, 3};
  CHECK(hashes("d").first != first.first);
}

TEST_CASE("A difference to another base is refused: by its headers, or its contents where asked for", "[file]") {
  Pair pair;
  pair.before[3].values[0] += 1;
  write(pair.folder / "base/model.safetensors", pair.before);
  CHECK(pair.open().deltas().size() == 2);
  test::require_refusal([&] { (void)pair.open(BaseCheck::contents); }, Code::mismatch,
                        "delta_config.json: base_hash: expected the base that the difference was taken to");
  test::require_refusal([&] { (void)pair.open(BaseCheck::contents); }, Code::mismatch, "base/model.safetensors");
  pair.before.push_back({"more", {1}, {0}});
  write(pair.folder / "base/model.safetensors", pair.before);
  test::require_refusal([&] { (void)pair.open(); }, Code::mismatch, "base_header_hash");
}

TEST_CASE("A delta_config.json that is not understood is refused", "[file]") {
  const Pair pair;
  const auto refused = [&](std::string_view json, Code code, std::string_view words) {
    pair.folder.write("delta/delta_config.json", json);
    test::require_refusal([&] { (void)pair.open(); }, code, words);
  };
  const std::string hashes = R"("base_header_hash":"0123456789abcdef","base_hash":"0123456789abcdef"})";
  refused(R"({"finteam_delta":2,"bits":1,"scales":"row",)" + hashes, Code::unsupported, "version 1");
  refused(R"({"bits":1,"scales":"row",)" + hashes, Code::not_found, "finteam_delta");
  refused(R"({"finteam_delta":1,"bits":4,"scales":"row",)" + hashes, Code::unsupported, "1 or 2");
  refused(R"({"finteam_delta":1,"bits":1,"scales":"group",)" + hashes, Code::unsupported, "matrix");
  refused(R"({"finteam_delta":1,"bits":1,"scales":"row","rank":4,)" + hashes, Code::unsupported, "rank");
  refused(R"({"finteam_delta":1,"bits":1,"scales":"row","base_header_hash":"0123456789ABCDEF"})", Code::malformed,
          "hexadecimal");
  refused(R"({"finteam_delta":1,"bits":1,"scales":"row",)" + hashes, Code::mismatch, "delta_config.json");
  refused("[]", Code::malformed, "delta_config.json");
}

TEST_CASE("Every delta_*.json in tests/refused is refused", "[file][law5][refused]") {
  test::check_refused_files(
      "delta",
      {
          {"bits_four", Code::unsupported, "bits: expected 1 or 2, found 4"},
          {"bits_fraction", Code::malformed, "bits: expected an integer from 0 to 64, found 1.5"},
          {"bits_missing", Code::not_found, "expected key \"bits\", found none"},
          {"bits_text", Code::malformed, "bits: expected an integer from 0 to 64, found \"1\""},
          {"bits_zero", Code::unsupported, "bits: expected 1 or 2, found 0"},
          {"deep", Code::limit_exceeded, "expected JSON at most 4 levels deep, found more"},
          {"hash_missing", Code::not_found, "expected key \"base_hash\", found none"},
          {"hash_number", Code::malformed, "base_hash: expected a string, found 1234567890123456"},
          {"hash_upper", Code::malformed, "base_hash: expected 16 hexadecimal digits, found \"FEDCBA9876543210\""},
          {"header_hash_missing", Code::not_found, "expected key \"base_header_hash\", found none"},
          {"header_hash_short", Code::malformed,
           "base_header_hash: expected 16 hexadecimal digits, found \"0123456789abcde\""},
          {"many_values", Code::limit_exceeded, "expected at most 100 JSON values, found more"},
          {"scales_missing", Code::not_found, "expected key \"scales\", found none"},
          {"scales_number", Code::malformed, "scales: expected a string, found 1"},
          {"scales_other", Code::unsupported, "scales: expected \"row\" or \"matrix\", found \"group\""},
          {"unknown_key", Code::unsupported, "rank: expected no such key: this build does not know it, found 4"},
          {"version_later", Code::unsupported, "finteam_delta: expected version 1, found 2"},
          {"version_missing", Code::not_found, "expected key \"finteam_delta\", found none"},
          {"version_text", Code::malformed, "finteam_delta: expected an integer from 0 to 1000000, found \"1\""},
      },
      [](const auto& path) {
        const auto file = finteam::JsonFile::open(path, finteam::DeltaConfig::limits);
        (void)finteam::DeltaConfig::read(file.root());
      });
}

TEST_CASE("Differences that do not fit their base are refused, by name", "[file]") {
  const Pair pair;
  const std::string hash = pair.open().config().base_hash;
  const auto refused = [&](const std::vector<finteam::TensorEntry>& tensors, Code code, std::string_view words,
                           float scale = 1) {
    std::string bytes = finteam::safetensors_header(tensors, {{"finteam_delta", "1"}, {"base_hash", hash}});
    for (const auto& t : tensors) {
      const auto size = static_cast<std::size_t>(finteam::detail::bytes_of(t));
      std::string data(size, '\x01');
      for (std::size_t i = 0; t.type == "F32" && i < size; i += 4) std::memcpy(data.data() + i, &scale, 4);
      bytes += data;
    }
    pair.folder.write("delta/delta.safetensors", bytes);
    if (words.empty()) {
      CHECK(pair.open().find("a.proj") != nullptr);
    } else {
      test::require_refusal([&] { (void)pair.open(); }, code, words);
    }
  };
  const finteam::TensorEntry numbers{"a.proj.delta", "U8", {5, 2}}, scales{"a.proj.delta_scale", "F32", {5}};
  refused({numbers, scales}, Code::system, "");
  refused({numbers}, Code::mismatch, "a.proj.delta_scale: expected F32 [5], found none");
  refused({scales}, Code::mismatch, "a.proj.delta_scale");
  refused({{"a.proj.delta", "U8", {5, 3}}, scales}, Code::mismatch, "a.proj.delta: expected U8 [5, 2]");
  refused({{"a.proj.delta", "I8", {5, 2}}, scales}, Code::mismatch, "a.proj.delta: expected U8 [5, 2]");
  refused({numbers, {"a.proj.delta_scale", "F32", {1}}}, Code::mismatch, "a.proj.delta_scale: expected F32 [5]");
  refused({numbers, {"a.proj.delta_scale", "BF16", {5}}}, Code::mismatch, "a.proj.delta_scale: expected F32 [5]");
  refused({numbers, scales}, Code::malformed, "a.proj.delta_scale: expected finite scales", INFINITY);
  refused({numbers, scales}, Code::malformed, "a.proj.delta_scale: expected finite scales", -1);
  refused({numbers, scales, {"a.proj", "F32", {5, 9}}}, Code::malformed, "a.proj: expected a tensor in full or");
  refused({{"c.proj.delta", "U8", {5, 2}}, {"c.proj.delta_scale", "F32", {5}}}, Code::mismatch, "c.proj.delta");
  refused({{"norm.delta", "U8", {4, 1}}, {"norm.delta_scale", "F32", {4}}}, Code::mismatch, "a difference to a matrix");
  refused({{"norm", "F32", {5}}}, Code::mismatch, "norm: expected [4]");
  refused({{"norm", "I16", {4}}}, Code::unsupported, "norm");
  refused({{"other", "F32", {4}}}, Code::mismatch, "other: expected a tensor of base/model.safetensors");
}

TEST_CASE("A file of another version, or beside another delta_config.json, is refused", "[file]") {
  const Pair pair;
  const std::string hash = pair.open().config().base_hash;
  const auto refused = [&](const finteam::SafetensorsMetadata& metadata, std::string_view words) {
    pair.folder.write("delta/delta.safetensors",
                      finteam::safetensors_header(std::vector<finteam::TensorEntry>{}, metadata));
    test::require_refusal([&] { (void)pair.open(); }, Code::mismatch, words);
  };
  refused({}, "__metadata__.finteam_delta");
  refused({{"finteam_delta", "2"}, {"base_hash", hash}}, "__metadata__.finteam_delta");
  refused({{"finteam_delta", "1"}, {"base_hash", "other"}}, "__metadata__.base_hash");
  std::filesystem::remove(pair.folder / "delta/delta.safetensors");
  test::require_refusal([&] { (void)pair.open(); }, Code::not_found, "delta.safetensors");
}

TEST_CASE("Checkpoints that are not of one shape have no difference", "[file]") {
  const Pair pair;
  const auto refused = [&](const std::vector<Tensor>& tuned, Code code, std::string_view words,
                           const DeltaOptions& options = {.part = part}) {
    write(pair.folder / "other/model.safetensors", tuned);
    const Checkpoint other = Checkpoint::open(pair.folder / "other");
    test::require_refusal([&] { finteam::write_delta(pair.base(), other, pair.folder / "none", options); }, code,
                          words);
    CHECK_FALSE(std::filesystem::exists(pair.folder / "none/delta.safetensors"));
    CHECK_FALSE(std::filesystem::exists(pair.folder / "none/delta_config.json"));
  };
  std::vector<Tensor> tensors = model(2);
  tensors.pop_back();
  refused(tensors, Code::mismatch, "head: expected a tensor, as in base/model.safetensors");
  tensors = model(2);
  tensors.push_back({"bias", {1}, {1}});
  refused(tensors, Code::mismatch, "other/model.safetensors: bias");
  tensors = model(2);
  tensors[3].shape = {3, 2};
  refused(tensors, Code::mismatch, "head: expected [2, 3], found [3, 2]");
  tensors = model(2);
  tensors[1].values[47] = NAN;
  refused(tensors, Code::malformed, "other/model.safetensors: b.proj");
  refused(model(2), Code::mismatch, "norm: expected a matrix",
          {.part = [](std::string_view) { return DeltaPart::low_bit; }});
  refused(model(2), Code::invalid_argument, "int1 or int2", {.format = Format::int4, .part = part});
}
