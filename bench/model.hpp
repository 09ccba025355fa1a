// What the questions need of the engine, and nothing of its types: an opened expert that steps, a product, attention, a
// desk that answers; and how many bytes its formats take. model.cpp alone knows the library, so a change of its
// interface is made there, and the other files compile in no time.
#pragma once

#include "harness.hpp"

#include <finteam/file/config.hpp>

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace bench {

// --- formats ---------------------------------------------------------------------------------------------------------

/// What --weights and --cache may be, the default first. What a difference to such weights may be kept as.
std::vector<std::string> weight_formats();
std::vector<std::string> cache_formats();
std::vector<std::string> delta_formats();

/// The instruction that products with these weights use.
Peak peak_of(const std::string& weights);

/// Bytes of a packed matrix [n, k], in a format of weights or differences.
double packed_bytes(index_t n, index_t k, const std::string& weights);

/// Bytes of a token's keys and values in one layer.
double cache_bytes(const finteam::Config& c, const std::string& cache);

/// A matrix product as the engine runs it: y [t, n] from x [t, k].
struct Product {
  std::string name;
  index_t n = 0, k = 0;
};

/// The products of one block, in their order.
std::vector<Product> block_products(const finteam::Config& c);
/// The product that makes logits.
Product head_product(const finteam::Config& c);

/// Packed bytes that a step reads: those of every block, and the head's.
double step_weight_bytes(const finteam::Config& c, const std::string& weights);

// --- the engine ------------------------------------------------------------------------------------------------------

/// The random checkpoint of the run's shape, made if it is not there.
std::filesystem::path checkpoint_folder(const Run& run);
/// Rows of one step of a session, unless the run says how many.
index_t rows_of_step(const Run& run);

/// One expert with a cache.
class Expert {
 public:
  /// Opens the run's checkpoint; room for so many sequences of so many tokens, and steps of so many rows.
  Expert(const Run& run, index_t sequences, index_t tokens, index_t rows);
  ~Expert();

  [[nodiscard]] const finteam::Config& config() const;
  /// `count` tokens from position `first` in each of the first `sequences`; logits of the last `logits` rows.
  void step(index_t sequences, index_t first, index_t count, index_t logits);
  /// Throws unless a few tokens at once and one by one give the same, finite logits.
  void check();

 private:
  struct Engine;
  std::unique_ptr<Engine> engine_;
};

/// Bytes of copies that take turns in a kernel's bench: as many as a step of the model reads, at most what no cache
/// holds.
double cold_bytes(const Run& run);

/// One product with random weights, or differences, in copies of which each comes from where the model's would.
class ProductBench {
 public:
  ProductBench(const Run& run, const Product& product, const std::string& format, index_t most_rows);
  ~ProductBench();
  /// Multiplies `rows` rows by the next copy.
  void run(index_t rows);
  /// Throws unless the first of `rows` rows has the bits that it has alone, and they are finite.
  void check(index_t rows);

 private:
  struct Engine;
  std::unique_ptr<Engine> engine_;
};

/// Attention over a random cache of `tokens` tokens, in so many layers that no processor's cache holds them.
class AttentionBench {
 public:
  AttentionBench(const Run& run, index_t tokens);
  ~AttentionBench();
  /// The last `rows` positions, in the next layer.
  void run(index_t rows);

 private:
  struct Engine;
  std::unique_ptr<Engine> engine_;
};

/// A session on the team in a folder.
class Desk {
 public:
  Desk(const Run& run, const std::filesystem::path& folder, index_t tokens);
  ~Desk();
  struct Text {
    index_t tokens = 0, drafted = 0, kept = 0;
  };
  /// Goes on from a few words, for so many tokens; draft: the role that weighs most writes ahead.
  Text generate(index_t tokens, bool draft = false, std::uint64_t seed = 1);
  /// Reads so many tokens and writes one.
  void read(index_t tokens);
  /// Bytes of weights that a token of the answer needs: of each awake role's decoder, or of the base and what they add.
  [[nodiscard]] double bytes_per_token() const;
  /// Of all weights, and of one session.
  [[nodiscard]] double memory_bytes() const;

  struct Answer {
    index_t prompt_tokens = 0, readers = 0;  ///< readers: roles that read the prompt
  };
  /// A label for a text.
  Answer classify(std::string_view text);
  [[nodiscard]] const finteam::Config& config() const;

 private:
  struct Engine;
  std::unique_ptr<Engine> engine_;
};

/// Whether weights once packed can be opened again from a file.
bool has_packed_files();

/// Opens the run's checkpoint once, in this process, and says {seconds, resident, resident_peak}.
Json open_once(const Run& run, bool from_packed);

}  // namespace bench
