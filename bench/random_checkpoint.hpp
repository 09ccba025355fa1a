// A Hugging Face folder with random weights of any Llama shape, so that a bench needs no download: config.json, the
// bundled team's tokenizer.json, model.safetensors in bf16. Written once, as a stream: no more than a few megabytes are
// in memory, or wait for the disk. Not here: weights that mean anything.
#pragma once

#include "shape.hpp"

#include <finteam/expert/weights.hpp>
#include <finteam/file/safetensors_writer.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <numbers>
#include <string>
#include <vector>

namespace bench {

/// SplitMix64 of a counter. Source: Steele, Lea & Flood 2014.
constexpr std::uint64_t hash(std::uint64_t x) noexcept {
  x += 0x9E3779B97F4A7C15U;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31);
}

/// Values of a normal distribution with deviation 0.02, as bf16: four of them drawn for each hash.
class RandomValues {
 public:
  /// around: the mean (1 for a norm's scale).
  explicit RandomValues(float around) {
    constexpr double size = std::tuple_size_v<decltype(table_)>;
    for (std::size_t i = 0; i < table_.size(); ++i) {  // Box & Muller 1958
      const double u = (static_cast<double>(i) + 0.5) / size, w = static_cast<double>(hash(i) >> 11) * 0x1p-53;
      table_[i] = finteam::to_bf16(
          around + static_cast<float>(0.02 * std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * w)));
    }
  }
  /// The values number `first` … of stream `seed`; first is a multiple of 4.
  void fill(std::uint64_t seed, std::uint64_t first, finteam::bf16* to, std::size_t count) const noexcept {
    for (std::size_t i = 0; i < count; i += 4) {
      std::uint64_t bits = hash((seed << 40) + (first + i) / 4);
      for (std::size_t j = i; j < std::min(i + 4, count); ++j, bits >>= 16) to[j] = table_[bits % table_.size()];
    }
  }

 private:
  std::array<finteam::bf16, 4096> table_;
};

/// Every tensor of a decoder of that config, in the order of its use.
inline std::vector<finteam::TensorToWrite> tensors_of(const finteam::Config& c) {
  const auto& names = finteam::llama_names;
  std::vector<finteam::TensorToWrite> all;
  const auto add = [&](std::string name, std::vector<index_t> shape) {
    all.push_back({std::move(name), finteam::DType::bf16, std::move(shape), {}});
  };
  add(std::string(names.embed_tokens), {c.v, c.d});
  for (index_t l = 0; l < c.layers; ++l) {
    const auto at = [&](std::string_view part) {
      return std::string(names.layer) + std::to_string(l) + "." + std::string(part);
    };
    add(at(names.input_norm), {c.d});
    add(at(names.q_proj), {c.h * c.e, c.d});
    add(at(names.k_proj), {c.g * c.e, c.d});
    add(at(names.v_proj), {c.g * c.e, c.d});
    add(at(names.o_proj), {c.d, c.h * c.e});
    add(at(names.post_attention_norm), {c.d});
    add(at(names.gate_proj), {c.f, c.d});
    add(at(names.up_proj), {c.f, c.d});
    add(at(names.down_proj), {c.d, c.f});
  }
  add(std::string(names.norm), {c.d});
  if (!c.tie_word_embeddings) add(std::string(names.lm_head), {c.v, c.d});
  return all;
}

/// The config.json of c, as transformers writes it.
inline std::string config_json(const finteam::Config& c) {
  const finteam::Json json = {{"model_type", "llama"},
                              {"vocab_size", c.v},
                              {"hidden_size", c.d},
                              {"num_hidden_layers", c.layers},
                              {"num_attention_heads", c.h},
                              {"num_key_value_heads", c.g},
                              {"head_dim", c.e},
                              {"intermediate_size", c.f},
                              {"max_position_embeddings", c.max_positions},
                              {"rms_norm_eps", c.rms_norm_eps},
                              {"rope_theta", c.rope.theta},
                              {"tie_word_embeddings", c.tie_word_embeddings},
                              {"torch_dtype", "bfloat16"},
                              {"eos_token_id", c.eos}};
  return json.dump(1);
}

/// A file that is written from its begin to its end and does not pile up in memory. Throws Error(system).
class StreamedFile {
 public:
  explicit StreamedFile(const std::filesystem::path& path)
      : path_(path), file_(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) {
    if (file_ < 0) refuse();
  }
  ~StreamedFile() { ::close(file_); }
  StreamedFile(const StreamedFile&) = delete;
  StreamedFile& operator=(const StreamedFile&) = delete;

  void write(const void* data, std::size_t bytes) {
    const char* p = static_cast<const char*>(data);
    for (std::size_t left = bytes; left != 0;) {
      const ssize_t n = ::write(file_, p, left);
      if (n < 0) refuse();
      p += n, left -= static_cast<std::size_t>(n), written_ += n;
    }
    if (written_ - begun_ < window) return;
    // Begin to write this window to the disk, and wait for the one before.
    sync_file_range(file_, begun_, written_ - begun_, SYNC_FILE_RANGE_WRITE);
    if (begun_ >= window) {
      sync_file_range(file_, 0, begun_,
                      SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    }
    begun_ = written_;
  }

 private:
  static constexpr off_t window = off_t{256} << 20;

  [[noreturn]] void refuse() const {
    throw finteam::Error(finteam::Code::system, path_.string(), "a file that can be written",
                         std::generic_category().message(errno));
  }

  std::filesystem::path path_;
  int file_;
  off_t written_ = 0, begun_ = 0;
};

/// What makes a checkpoint another one than the first: `share` of noise in every matrix, of stream `role`.
struct Noise {
  std::uint64_t role = 0;
  float share = 0;
};

/// model.safetensors of that config.
inline void write_random_weights(const std::filesystem::path& path, const finteam::Config& c, const Noise& noise) {
  auto tensors = tensors_of(c);
  const auto bytes = [](const finteam::TensorToWrite& t) {
    std::size_t n = 2;
    for (const index_t e : t.shape) n *= static_cast<std::size_t>(e);
    return n;
  };
  // The header wants to see each tensor's data; it looks at their size only, so no page of these comes into being.
  const auto largest = std::ranges::max_element(tensors, {}, bytes);
  const auto room = std::make_unique_for_overwrite<std::byte[]>(bytes(*largest));
  for (auto& t : tensors) t.data = {room.get(), bytes(t)};

  const double need = 2 * (block_weights(c) + head_weights(c) * (c.tie_word_embeddings ? 1 : 2)) + 1e9;
  if (const auto have = std::filesystem::space(path.parent_path()).available; static_cast<double>(have) < need) {
    throw finteam::Error(finteam::Code::limit_exceeded, path.string(),
                         std::to_string(need / 1e9) + " GB of free disk (--models names another folder)",
                         std::to_string(static_cast<double>(have) / 1e9) + " GB");
  }
  StreamedFile file(path);
  const std::string header = finteam::safetensors_header(tensors);
  file.write(header.data(), header.size());
  const RandomValues weights(0.0F), scales(1.0F);
  std::vector<finteam::bf16> block(std::size_t{1} << 20), other(noise.share != 0 ? block.size() : 0);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::size_t count = tensors[i].data.size() / 2;
    for (std::size_t first = 0; first < count; first += block.size()) {
      const std::size_t n = std::min(block.size(), count - first);
      (tensors[i].shape.size() == 1 ? scales : weights).fill(i, first, block.data(), n);
      if (noise.share != 0 && tensors[i].shape.size() == 2) {
        weights.fill((noise.role << 16) + i, first, other.data(), n);
        for (std::size_t x = 0; x < n; ++x) {
          block[x] = finteam::to_bf16(finteam::to_float(block[x]) + noise.share * finteam::to_float(other[x]));
        }
      }
      file.write(block.data(), 2 * n);
    }
  }
}

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
inline void write_file(const std::filesystem::path& path, const std::string& text) {
  if (!(std::ofstream(path, std::ios::binary) << text)) {
    throw finteam::Error(finteam::Code::system, path.string(), "a file that can be written", "an error");
  }
}

/// The folder of a random checkpoint of that shape below `models`, written if it is not there yet. Tokens are those of
/// the tokenizer.json given. Throws Error(system) when a file cannot be written.
inline std::filesystem::path random_checkpoint(const std::filesystem::path& models, const std::string& shape_name,
                                               const std::filesystem::path& tokenizer, const Noise& noise = {}) {
  const finteam::Config c = shape(shape_name);
  const std::string name =
      shape_name + (noise.share == 0 ? "" : "-" + std::to_string(noise.role) + "-" + std::to_string(noise.share));
  const auto folder = models / name, unfinished = models / (name + ".unfinished");
  if (read_file(folder / "config.json") == config_json(c)) return folder;
  std::filesystem::remove_all(folder);
  std::filesystem::remove_all(unfinished);
  std::filesystem::create_directories(unfinished);
  write_random_weights(unfinished / "model.safetensors", c, noise);
  write_file(unfinished / "config.json", config_json(c));
  write_file(unfinished / "tokenizer.json", read_file(tokenizer));
  std::filesystem::rename(unfinished, folder);
  return folder;
}

}  // namespace bench
