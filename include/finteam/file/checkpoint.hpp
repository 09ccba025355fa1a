// The weights of one Hugging Face folder: model.safetensors, or shards under model.safetensors.index.json.
// Not here: which tensors a model needs (expert/weights.hpp), config.json (config.hpp).
#pragma once

#include <finteam/file/json_view.hpp>
#include <finteam/file/safetensors.hpp>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

inline constexpr std::size_t checkpoint_max_shards = 1'000;

/// A shard is a bare file name beside its index: no folder, drive, control character or way up.
[[nodiscard]] inline bool is_bare_shard_name(std::string_view name) noexcept {
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F || c == '/' || c == '\\' || c == ':') return false;
  }
  return !name.starts_with('.') && name.ends_with(".safetensors") && name.size() <= 255;
}

}  // namespace detail

/// The tensors of a folder, mapped and checked. Immutable; moves, and what it gave out stays good when it does.
class Checkpoint {
 public:
  /// Opens `folder`/model.safetensors, or else what `folder`/model.safetensors.index.json names. Symbolic links are
  /// followed (Hugging Face caches are made of them). Error(not_found): neither file, or a shard is missing.
  /// Error(malformed): a broken file, or a shard name that is not a bare file name. Error(mismatch): a tensor is not
  /// in the shard that the index names. Tensors that the index does not name are ignored, as transformers does.
  [[nodiscard]] static Checkpoint open(const std::filesystem::path& folder) {
    Checkpoint self;
    const auto index = folder / "model.safetensors.index.json";
    const auto single = folder / "model.safetensors";
    std::error_code ignored;
    if (std::filesystem::exists(single, ignored)) {
      self.where_ = detail::file_label(single);
      self.open_single(single);
    } else if (std::filesystem::exists(index, ignored)) {
      self.where_ = detail::file_label(index);
      self.open_shards(folder, index);
    } else {
      throw Error(Code::not_found, folder.string(), "model.safetensors or model.safetensors.index.json", "neither");
    }
    return self;
  }

  /// The tensor `name`, or null if there is none; it lives as long as the checkpoint. Error(unsupported): stored in a
  /// type other than F32, F16 and BF16.
  [[nodiscard]] const RawTensor* find(std::string_view name) const {
    const auto found = shard_of_.find(name);
    return found != shard_of_.end() ? shards_[found->second].find(name) : nullptr;
  }

  /// The tensor `name`; Error(not_found) if there is none, else as find.
  [[nodiscard]] RawTensor tensor(std::string_view name) const {
    const RawTensor* const raw = find(name);
    if (raw == nullptr) throw Error(Code::not_found, where(name), "a tensor", "none of that name");
    return *raw;
  }

  /// The tensor `name` if it has that shape. Error(mismatch) if not, which names file, tensor and both shapes.
  [[nodiscard]] RawTensor tensor(std::string_view name, std::span<const index_t> shape) const {
    const RawTensor raw = tensor(name);
    if (!std::ranges::equal(raw.shape, shape)) {
      throw Error(Code::mismatch, where(name), detail::shape_string(shape), detail::shape_string(raw.shape));
    }
    return raw;
  }
  [[nodiscard]] RawTensor tensor(std::string_view name, std::initializer_list<index_t> shape) const {
    return tensor(name, std::span<const index_t>(shape.begin(), shape.size()));
  }

  /// The tensor `name` as it is stored, whatever its type, or nothing if there is none.
  [[nodiscard]] std::optional<StoredTensor> stored(std::string_view name) const {
    const auto found = shard_of_.find(name);
    return found != shard_of_.end() ? shards_[found->second].stored(name) : std::nullopt;
  }

  /// Whether there is a tensor of that name, of whatever type.
  [[nodiscard]] bool contains(std::string_view name) const { return shard_of_.contains(name); }

  /// All names, sorted, of whatever type.
  [[nodiscard]] std::vector<std::string_view> names() const {
    std::vector<std::string_view> all;
    all.reserve(shard_of_.size());
    for (const auto& [name, shard] : shard_of_) all.emplace_back(name);
    return all;
  }

  /// Bytes of all tensors in all shards.
  [[nodiscard]] std::size_t bytes() const noexcept {
    std::size_t sum = 0;
    for (const Safetensors& shard : shards_) sum += shard.bytes();
    return sum;
  }

  /// The files, in the order in which they were opened.
  [[nodiscard]] std::span<const Safetensors> shards() const noexcept { return shards_; }

  /// Takes the pages of a tensor out of this process's memory; they come back when they are touched.
  void release(std::string_view name) const {
    const auto found = shard_of_.find(name);
    if (found != shard_of_.end()) shards_[found->second].file().release(shards_[found->second].stored(name)->bytes);
  }

  /// The same for all tensors: those of a neighbour may have come along with a tensor's.
  void release() const noexcept {
    for (const Safetensors& shard : shards_) shard.file().release(shard.data());
  }

  /// What errors call this checkpoint: "micro/model.safetensors".
  [[nodiscard]] const std::string& where() const noexcept { return where_; }
  /// What errors call a tensor: "micro/model-00001-of-00002.safetensors: model.norm.weight".
  [[nodiscard]] std::string where(std::string_view name) const {
    const auto found = shard_of_.find(name);
    const std::string& file = found != shard_of_.end() ? shards_[found->second].where() : where_;
    return file + ": " + detail::printable(name);
  }

 private:
  Checkpoint() = default;

  void open_single(const std::filesystem::path& path) {
    shards_.push_back(Safetensors::open(path));
    for (const std::string_view name : shards_.front().names()) shard_of_.emplace(name, 0);
  }

  void open_shards(const std::filesystem::path& folder, const std::filesystem::path& index) {
    const JsonFile json = JsonFile::open(index, JsonLimits{.values = 1'000'000, .bytes = std::size_t{1} << 26});
    const JsonView map = json.root().at("weight_map");
    std::map<std::string, std::size_t, std::less<>> opened;
    map.each_member([&](std::string_view tensor, const JsonView& value) {
      const std::string& file = value.as_string();
      if (!detail::is_bare_shard_name(file)) value.refuse("the bare name of a .safetensors file beside the index");
      if (shard_of_.size() == detail::safetensors_max_tensors) {
        map.refuse("at most " + std::to_string(detail::safetensors_max_tensors) + " tensors", Code::limit_exceeded);
      }
      const auto [shard, fresh] = opened.emplace(file, shards_.size());
      if (fresh) {
        if (shards_.size() == detail::checkpoint_max_shards) {
          map.refuse("at most " + std::to_string(detail::checkpoint_max_shards) + " shards", Code::limit_exceeded);
        }
        shards_.push_back(Safetensors::open(folder / file));
      }
      if (!shards_[shard->second].contains(tensor)) {
        throw Error(Code::mismatch, value.where(), "a tensor in " + detail::printable(file), "none of that name");
      }
      shard_of_.emplace(tensor, shard->second);
    });
  }

  std::string where_;
  std::vector<Safetensors> shards_;
  std::map<std::string, std::size_t, std::less<>> shard_of_;
};

}  // namespace finteam::inline FINTEAM_ABI
