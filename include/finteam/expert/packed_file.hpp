// A role's packed weights in a safetensors file of their own, so that the next start maps them and packs nothing: every
// matrix as U8 [panels, bytes of a panel] at a multiple of 64 bytes, every vector as F32 [n], a checksum of each.
// Not here: trust. The file must say of which source it is, in which formats; every length, shape and byte is checked.
#pragma once

#include <finteam/backend/backend.hpp>
#include <finteam/backend/executor.hpp>
#include <finteam/core/hash.hpp>
#include <finteam/expert/decoded_parts.hpp>
#include <finteam/file/safetensors_writer.hpp>

#include <algorithm>
#include <concepts>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// A backend whose matrices are panels, packed on an executor: they can come out of a file.
template <class B>
concept PacksPanels = Backend<B> && std::same_as<typename B::Matrix, PackedMatrix> && requires(const B& b) {
  { b.executor() } -> std::same_as<ExecutorRef>;
};

namespace detail {

/// A hash of bytes that many threads find together: XXH64 over the hashes of pieces of 4 MiB. Pages of `file`, in which
/// the bytes lie, are brought in on the way.
[[nodiscard]] inline std::uint64_t hash_on(const ExecutorRef& executor, std::span<const std::byte> bytes,
                                           const MappedFile& file = {}) {
  constexpr std::size_t piece = std::size_t{1} << 22;
  std::vector<std::uint64_t> hashes((bytes.size() + piece - 1) / piece);
  parallel_for(executor, static_cast<index_t>(hashes.size()), [&](index_t i) {
    const std::size_t first = static_cast<std::size_t>(i) * piece;
    const auto part = bytes.subspan(first, std::min(piece, bytes.size() - first));
    if (!file.bytes().empty()) file.fetch(part);
    hashes[static_cast<std::size_t>(i)] = xxh64(part);
  });
  return xxh64(std::as_bytes(std::span(hashes)));
}

/// What the packed weights of a checkpoint under some options are, and the file that holds them.
template <PacksPanels B>
class PackedFile {
 public:
  /// `weights` are find_weights' for the checkpoint and the options; all outlive this.
  PackedFile(const B& backend, const Checkpoint& checkpoint, const std::vector<SourceWeight>& weights,
             const OpenOptions& options)
      : backend_(backend), checkpoint_(checkpoint), options_(options) {
    for (const SourceWeight& w : weights) order_.push_back(&w);
    // Vectors come last: they may end between multiples of 64 bytes.
    std::stable_partition(order_.begin(), order_.end(), [](const SourceWeight* w) { return !w->is_vector(); });
    for (const SourceWeight* w : order_) entries_.push_back(entry_of(*w));
    entries_.push_back({"checksums", "U64", {static_cast<index_t>(order_.size())}});
    metadata_ = {{"finteam", "packed weights, layout " + std::to_string(packing_version)},
                 {"source", source()},
                 {"formats", formats()}};
    const std::string all = metadata_["finteam"] + metadata_["source"] + metadata_["formats"];
    path_ = options.packed / (hex(xxh64(std::as_bytes(std::span(all)))) + ".safetensors");
  }

  /// The file, mapped and checked. If there is none, or it is not what it should be, prepare() is called, it is
  /// written, and takes the place of what was there. Throws Error(system) if it cannot be written.
  template <class Prepare>
  [[nodiscard]] Safetensors open_or_write(Prepare&& prepare, LoadProgress& progress) const {
    if (auto file = open(progress)) return std::move(*file);
    prepare();
    progress.restart();
    write(progress);
    progress.restart();
    if (auto file = open(progress)) return std::move(*file);
    throw Error(Code::system, path_.string(), "the packed weights that were just written", "others");
  }

  /// A matrix's panels in a file that open_or_write gave.
  [[nodiscard]] const std::byte* panels(const Safetensors& file, const SourceWeight& w) const {
    const TensorEntry entry = entry_of(w);
    return file.bytes(entry.name, entry.type, entry.shape)->data();
  }

 private:
  [[nodiscard]] static TensorEntry entry_of(const SourceWeight& w) {
    if (w.is_vector()) return {w.name(), "F32", {w.elements()}};
    const PackedMatrix panels = w.panels();
    return {w.name(), "U8", {panels.panels(), panels.panel_bytes()}};
  }

  /// The source's files, a line each: their sizes, headers, and times or contents.
  [[nodiscard]] std::string source() const {
    std::string text;
    for (const Safetensors& shard : checkpoint_.shards()) {
      text += std::to_string(shard.header().size() + shard.bytes()) + " bytes, header " + hex(xxh64(shard.header()));
      text += options_.verify == Verify::times ? ", changed " + std::to_string(shard.file().modified())
                                               : ", contents " + hex(contents(shard));
      text += '\n';
    }
    return text;
  }
  [[nodiscard]] std::uint64_t contents(const Safetensors& shard) const {
    constexpr std::size_t window = std::size_t{1} << 27;
    std::vector<std::uint64_t> hashes;
    for (std::size_t first = 0; first < shard.bytes(); first += window) {
      const auto part = shard.data().subspan(first, std::min(window, shard.bytes() - first));
      hashes.push_back(hash_on(backend_.executor(), part, shard.file()));
      shard.file().release(part);
    }
    return xxh64(std::as_bytes(std::span(hashes)));
  }
  /// The weights, a line each.
  [[nodiscard]] std::string formats() const {
    std::string text;
    for (const SourceWeight* w : order_) {
      text += w->name();
      if (w->is_vector()) {
        text += ": f32";
      } else {
        const PackedMatrix m = w->panels();
        text += ": " + std::string(name(m.format())) + (m.join() == Join::paired ? " paired " : " stacked ") +
                shape_string(std::array{m.rows(), m.cols()});
      }
      if (!w->stored_as.empty()) text += ", out of " + w->stored_as;
      text += '\n';
    }
    return text;
  }

  /// The file if it is there and right; all of it has then been read.
  [[nodiscard]] std::optional<Safetensors> open(LoadProgress& progress) const {
    std::optional<Safetensors> file;
    try {
      file = Safetensors::open(path_);
    } catch (const Error&) {  // none, or none of ours
      return std::nullopt;
    }
    if (file->metadata() != metadata_ || file->names().size() != entries_.size()) return std::nullopt;
    const TensorEntry& last = entries_.back();
    const auto checksums = file->bytes(last.name, last.type, last.shape);
    if (!checksums) return std::nullopt;
    for (std::size_t i = 0; i < order_.size(); ++i) {
      const TensorEntry& entry = entries_[i];
      const auto bytes = file->bytes(entry.name, entry.type, entry.shape);
      const bool aligned =
          bytes && (order_[i]->is_vector() || reinterpret_cast<std::uintptr_t>(bytes->data()) % Buffer::alignment == 0);
      if (!aligned) return std::nullopt;
      const std::uint64_t sum = hash_on(backend_.executor(), *bytes, file->file());
      if (std::memcmp(&sum, checksums->data() + 8 * i, 8) != 0) return std::nullopt;
      progress.add(order_[i]->source_bytes);
    }
    return file;
  }

  /// Packs a matrix at a time.
  void write(LoadProgress& progress) const {
    std::error_code error;
    std::filesystem::create_directories(options_.packed, error);
    if (error) throw Error(Code::system, options_.packed.string(), "a folder that can be written", error.message());
    FileWriter file(path_);
    file.write(safetensors_header(std::span<const TensorEntry>(entries_), metadata_));
    std::vector<std::uint64_t> checksums;
    const auto put = [&](std::span<const std::byte> bytes) {
      checksums.push_back(hash_on(backend_.executor(), bytes));
      file.write(bytes);
    };
    for (const SourceWeight* w : order_) {
      const DecodedParts parts(backend_, *w, options_.memory);
      if (w->is_vector()) {
        const auto vector = float_vector(parts.tensors(), std::pmr::get_default_resource());
        put(std::as_bytes(vector.view().span()));
      } else {
        const PackedMatrix m = backend_.matrix(parts.tensors(), w->entry.join, w->weights, options_.memory);
        put({m.panel(0), m.bytes()});
      }
      for (const std::string& name : w->files) checkpoint_.release(name);
      progress.add(w->source_bytes);
    }
    checkpoint_.release();
    file.write(std::as_bytes(std::span(checksums)));
    file.commit();
  }

  const B& backend_;
  const Checkpoint& checkpoint_;
  const OpenOptions& options_;
  std::vector<const SourceWeight*> order_;
  std::vector<TensorEntry> entries_;  // of order_, and the checksums
  SafetensorsMetadata metadata_;
  std::filesystem::path path_;
};

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
