// A safetensors file: its header checked in full once, its tensors given out as views of the mapped bytes.
// Not here: several files (checkpoint.hpp), conversion, alignment (a writer's habit: the data may lie anywhere).
// Source: the format's description and reference reader, github.com/huggingface/safetensors; stricter where it is lax.
#pragma once

#include <finteam/core/view.hpp>
#include <finteam/file/json_view.hpp>
#include <finteam/file/mapped_file.hpp>
#include <finteam/file/safetensors_header.hpp>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI {
/// A tensor as a file stores it, of whatever type ("U8", "I32"), which may be none that is read as numbers.
struct StoredTensor {
  std::string_view type;
  std::span<const std::byte> bytes;
  std::span<const index_t> shape;
};

/// A checked safetensors file, or bytes of one. Immutable; moves, and what it gave out stays good when it does.
class Safetensors {
 public:
  /// Maps and checks a file. Errors as MappedFile::open and parse.
  [[nodiscard]] static Safetensors open(const std::filesystem::path& path) {
    MappedFile file = MappedFile::open(path);
    Safetensors tensors = parse(file.bytes(), detail::file_label(path));
    tensors.file_ = std::move(file);
    return tensors;
  }

  /// Checks bytes that the caller keeps: [u64 n, little-endian][n bytes of JSON][data]. `where` names them in errors.
  /// Error(malformed): n > 100,000,000 or past the end; a header that is not a JSON object in UTF-8 with every key
  /// once; shapes or offsets that are not non-negative integers; a size other than Π shape × element; tensors that do
  /// not tile the data exactly. Error(unsupported): an unknown dtype. Error(limit_exceeded): more than 100,000 tensors,
  /// or 64 extents. Zero-size tensors and rank 0 are legal. Cost: the header's length; the data are not touched.
  [[nodiscard]] static Safetensors parse(std::span<const std::byte> bytes, std::string where) {
    Safetensors self;
    self.where_ = std::move(where);
    const std::string_view header = detail::safetensors_header_text(bytes, self.where_);
    const std::span<const std::byte> data = bytes.subspan(8 + header.size());
    const JsonFile json(header, self.where_, JsonLimits{.depth = 8});
    std::vector<detail::HeaderEntry> entries;
    json.root().each_member([&](std::string_view name, const JsonView& value) {
      if (name == "__metadata__") return self.read_metadata(value);
      if (entries.size() == detail::safetensors_max_tensors) {
        throw Error(Code::limit_exceeded, self.where_,
                    "at most " + std::to_string(detail::safetensors_max_tensors) + " tensors", "more");
      }
      entries.push_back(detail::read_header_entry(name, value));
    });
    detail::check_tiling(entries, data.size(), self.where_);
    self.keep(entries, data.data());
    self.header_ = bytes.first(8 + header.size());
    self.data_ = data;
    return self;
  }

  /// The tensor `name`, or null if there is none. It lives as long as this file. Error(unsupported): stored in a type
  /// other than F32, F16 and BF16.
  [[nodiscard]] const RawTensor* find(std::string_view name) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) return nullptr;
    if (!found->second.type->dtype) {
      throw Error(Code::unsupported, named(name), "F32, F16 or BF16", std::string(found->second.type->name));
    }
    return &found->second.raw;
  }

  /// The tensor `name`; Error(not_found) if there is none, else as find.
  [[nodiscard]] RawTensor tensor(std::string_view name) const {
    const RawTensor* const raw = find(name);
    if (raw == nullptr) throw Error(Code::not_found, named(name), "a tensor", "none of that name");
    return *raw;
  }

  /// The bytes of the tensor `name`, whatever its type, or nothing if there is none, or it is not a `type` ("U8") of
  /// that shape.
  [[nodiscard]] std::optional<std::span<const std::byte>> bytes(std::string_view name, std::string_view type,
                                                                std::span<const index_t> shape) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) return std::nullopt;
    const auto& [stored, raw] = found->second;
    if (stored->name != type || !std::ranges::equal(raw.shape, shape)) return std::nullopt;
    return std::span(raw.data, static_cast<std::size_t>(raw.size()) * stored->bytes);
  }

  /// The tensor `name` as it is stored, whatever its type, or nothing if there is none.
  [[nodiscard]] std::optional<StoredTensor> stored(std::string_view name) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) return std::nullopt;
    const auto& [type, raw] = found->second;
    return StoredTensor{type->name, {raw.data, static_cast<std::size_t>(raw.size()) * type->bytes}, raw.shape};
  }

  /// Whether there is a tensor of that name, of whatever type.
  [[nodiscard]] bool contains(std::string_view name) const { return tensors_.contains(name); }

  /// All names, sorted, of whatever type.
  [[nodiscard]] std::vector<std::string_view> names() const {
    std::vector<std::string_view> all;
    all.reserve(tensors_.size());
    for (const auto& [name, tensor] : tensors_) all.emplace_back(name);
    return all;
  }

  /// `__metadata__`: free words of the writer.
  [[nodiscard]] const std::map<std::string, std::string, std::less<>>& metadata() const noexcept { return metadata_; }
  /// Bytes of all tensors.
  [[nodiscard]] std::size_t bytes() const noexcept { return data_.size(); }
  /// What lies before them: the header with its length.
  [[nodiscard]] std::span<const std::byte> header() const noexcept { return header_; }
  /// They themselves, as they lie in the file.
  [[nodiscard]] std::span<const std::byte> data() const noexcept { return data_; }
  /// The file, empty if the caller keeps the bytes.
  [[nodiscard]] const MappedFile& file() const noexcept { return file_; }
  /// What errors call this file.
  [[nodiscard]] const std::string& where() const noexcept { return where_; }

 private:
  struct Stored {
    const detail::StoredType* type;
    RawTensor raw;  // its dtype means nothing where type->dtype is empty
  };

  Safetensors() = default;

  [[nodiscard]] std::string named(std::string_view name) const { return where_ + ": " + detail::printable(name); }

  void read_metadata(const JsonView& json) {
    json.each_member([&](std::string_view key, const JsonView& value) { metadata_.emplace(key, value.as_string()); });
  }

  void keep(std::vector<detail::HeaderEntry>& entries, const std::byte* data) {
    std::size_t extents = 0;
    for (const auto& entry : entries) extents += entry.shape.size();
    shapes_.reserve(extents);  // so that it never moves under the spans
    for (auto& entry : entries) {
      const std::span<const index_t> shape(shapes_.data() + shapes_.size(), entry.shape.size());
      shapes_.insert(shapes_.end(), entry.shape.begin(), entry.shape.end());
      const RawTensor raw{data + entry.begin, entry.type->dtype.value_or(DType::f32), shape};
      tensors_.emplace(std::move(entry.name), Stored{entry.type, raw});
    }
  }

  MappedFile file_;
  std::string where_;
  std::map<std::string, std::string, std::less<>> metadata_;
  std::map<std::string, Stored, std::less<>> tensors_;
  std::vector<index_t> shapes_;
  std::span<const std::byte> header_, data_;
};

}  // namespace finteam::inline FINTEAM_ABI
