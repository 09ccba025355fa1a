// What the kernels are told: one plain struct for each, with addresses of device memory. Shared by the host headers,
// any C++20 compiler reads them, and by kernels/*.cu. Not here: what an op means (backend.hpp), how a step is recorded.
//
// Letters as in backend.hpp. Addresses are of device memory; `stride` is in elements, from one row to the next.
#pragma once

#include <cstddef>
#include <cstdint>

namespace finteam::cuda_v0_1 {

/// As finteam::Format, finteam::CacheFormat and finteam::Activation::Kind number them.
enum class Format : std::int32_t { f32, bf16_wide, bf16, int8, int4, int4_zero, int1, int2 };
enum class CacheFormat : std::int32_t { f32, bf16, int8 };
enum class Curve : std::int32_t { silu, gelu_tanh, clamped_silu };
struct Gate {
  Curve curve;
  float alpha, limit;
  bool operator==(const Gate&) const = default;
};

/// [count, n], perhaps with a gap between rows.
struct Rows {
  float* data;
  std::int64_t stride;
  std::int32_t count, n;
  bool operator==(const Rows&) const = default;
};

/// The rows of a step that take part, as finteam::Chosen: row i of the product is row rows[i], or i, of the step.
struct Chosen {
  const std::int32_t* rows;  ///< [count], or null: every row
  const float* weight;       ///< [count], or null: 1
  float scale;
  std::int32_t count;
  bool operator==(const Chosen&) const = default;
};

/// A matrix [n, k] as device_matrix.hpp lays it out; paired: two of them.
struct Matrix {
  const void* data;
  Format format;
  std::int32_t n, k;
  std::int32_t paired;
  bool operator==(const Matrix&) const = default;
};

/// As finteam::RowScales.
struct Scales {
  const float* shared;         ///< [d]
  const float* own;            ///< [experts, d], or null
  const std::int32_t* expert;  ///< by row of the step, or null
  bool operator==(const Scales&) const = default;
};

/// Where rows stand: row i at position[i] of the sequence whose pages are tables[table[i] …].
struct Sites {
  const std::int32_t *table, *position, *tables, *is_long;
  std::int32_t count;
  bool operator==(const Sites&) const = default;
};

/// One layer of a cache, as device_page.hpp lays its pages out: [g, pages, page_bytes].
struct Cache {
  std::byte* data;
  std::int64_t head_stride, page_stride;  ///< bytes
  CacheFormat format;
  std::int32_t g, e;
  bool operator==(const Cache&) const = default;
};

struct Fill {
  Rows y;
  float value;
  bool operator==(const Fill&) const = default;
};
struct Copy {
  Rows x, y;
  bool operator==(const Copy&) const = default;
};
/// y[row(i),:] = factor(i) · w[tokens[i],:]
struct Embed {
  Matrix w;
  const std::int32_t* tokens;
  Chosen chosen;
  Rows y;
  bool operator==(const Embed&) const = default;
};
/// y[row(i),:] += factor(i) · bias
struct AddBias {
  const float* bias;
  Chosen chosen;
  Rows y;
  bool operator==(const AddBias&) const = default;
};
struct SoftCap {
  float cap;
  Chosen chosen;
  Rows y;
  bool operator==(const SoftCap&) const = default;
};
/// y (+)= rms_norm(x), row by row; heads > 1: row t·heads + i is head i of row t, whose heads are n apart.
struct Norm {
  Rows x;
  Scales scales;
  float eps;
  std::int32_t accumulate, heads;
  Rows y;
  bool operator==(const Norm&) const = default;
};
/// The chosen rows of x, normed if there are scales, as products of that format read them: f32 [count, pad 32], bf16
/// [count, pad 32], or integers [count, pad 128] and, for each 32 of them, a scale and their sum.
struct Prepare {
  Rows x;
  Chosen chosen;
  Scales scales;
  float eps;
  Format format;
  void* to;
  float* groups;  ///< [count, pad 128 / 32, 2], of integers
  bool operator==(const Prepare&) const = default;
};
/// y[row(r),i] (+)= factor(r) · Σ_j input[r, first + j] · w[i,j]; gated: y[r,i] = gated(Σ gate + plus, Σ up + plus').
/// input: what Prepare wrote; null: every block prepares the rows for itself, as `prologue` says, whose `to` and
/// `groups` do not count.
struct Multiply {
  Prepare prologue;
  Matrix w;
  const void* input;
  const float* groups;
  std::int32_t input_k;  ///< that input was prepared for, which fixes how far its rows are apart
  std::int32_t first;    ///< even; where w is not of integers
  Chosen chosen;
  Rows y;
  std::int32_t accumulate, gated;
  Gate gate;
  Rows plus;  ///< [t, 2n], or no rows
  bool operator==(const Multiply&) const = default;
};
/// Several of these at once, by matrices of one format that are stacked; none of them gated, none without rows or
/// outputs. `rows` … `prologue`: the greatest of them.
struct MultiplyEach {
  const Multiply* products;  ///< [count]
  Format format;
  std::int32_t count, rows, n, k;
  std::int64_t prologue;  ///< bytes of the rows that a block prepares
  bool operator==(const MultiplyEach&) const = default;
};
/// y[r,i] (+)= factor(r) · z[r,i], or gated(z's pairs), after a product that wrote z: eight gates, then eight ups.
struct Finish {
  const float* z;
  std::int64_t stride;
  Multiply product;
  bool operator==(const Finish&) const = default;
};
/// to [n to the next 16, k to the next 32] = a matrix of int8, int4 or int4_zero in bf16.
struct Widen {
  Matrix w;
  void* to;
  bool operator==(const Widen&) const = default;
};
/// z [rows, n] = x [rows, k] · wᵀ, all bf16 but z, in one order of k whatever `rows` is. (cuBLASLt)
struct Gemm {
  const void *x, *w;
  float* z;
  std::int32_t rows, n, k;
  std::int64_t x_stride, w_stride, z_stride;
  std::int32_t accumulate;
  bool operator==(const Gemm&) const = default;
};
/// Which experts rows chose, top_k slots each: pair r · top_k + j is slot j of row r. Experts rise along the slots; -1:
/// none in this slot nor in those behind it.
struct Routes {
  std::int32_t* expert;  ///< [rows, top_k]
  float* weight;         ///< [rows, top_k]
  std::int32_t* groups;  ///< [group_count(), 2]: each expert that has pairs, rising, and how many; then -1 and 0
  std::int32_t* pairs;   ///< [group_count(), rows]: those of each, rising
  std::int32_t rows, top_k, experts;
  bool operator==(const Routes&) const = default;

  [[nodiscard]] constexpr std::int32_t group_count() const noexcept {
    return rows * top_k < experts ? rows * top_k : experts;
  }
};
/// Matrices of experts, all of one shape and format, and what is added to each one's outputs.
struct Experts {
  const void* const* data;   ///< [experts], where w.data would be
  const float* const* bias;  ///< [experts], or null
  bool operator==(const Experts&) const = default;
};
/// weights[r,:] = gate_weights(logits[r,:]) of finteam::GateRule, at temperature 1 and without a floor, in double; and
/// which they are.
struct Route {
  Rows logits, weights;  ///< [rows, experts]
  Routes routes;
  std::int32_t renormalise;
  bool operator==(const Route&) const = default;
};
/// As Multiply of every pair by its expert's matrix; biases are added where gated. Pair i is row i of y and reads row
/// i / pairs_each of the input.
struct MultiplyRouted {
  Multiply product;  ///< w: without data; chosen: nothing; plus: nothing
  Experts experts;
  Routes routes;
  std::int32_t pairs_each;
  bool operator==(const MultiplyRouted&) const = default;
};
/// y[r,:] += Σ_j weight[r,j] · (z[r · top_k + j,:] + bias of expert[r,j]), j rising
struct AddRouted {
  Rows z;
  Experts experts;
  Routes routes;
  Rows y;
  bool operator==(const AddRouted&) const = default;
};
struct Gated {
  Rows gate, up;
  Gate curve;
  Rows y;
  bool operator==(const Gated&) const = default;
};
/// cosine[t,i], sine[t,i] = factor · cos, sin(position[t] · frequency[i])
struct Angles {
  const float *frequency, *long_frequency;  ///< the second may be null
  float factor;
  Sites sites;
  Rows cosine, sine;
  bool operator==(const Angles&) const = default;
};
/// Heads [t, heads, e], heads e_stride apart.
struct Heads {
  float* data;
  std::int64_t row_stride, head_stride;
  std::int32_t rows, heads, e;
  bool operator==(const Heads&) const = default;
};
struct Rope {
  Rows cosine, sine;
  Heads x;
  bool operator==(const Rope&) const = default;
};
struct CacheWrite {
  Sites sites;
  Heads k, v;
  Cache cache;
  bool operator==(const CacheWrite&) const = default;
};
/// A Rope, and a CacheWrite of its last heads and of values.
struct TurnAndWrite {
  Rope turn;
  CacheWrite write;

  bool operator==(const TurnAndWrite&) const = default;
};
struct CacheCopy {
  Cache cache;
  std::int32_t from, to;
  bool operator==(const CacheCopy&) const = default;
};
/// As finteam::AttentionRule.
struct Rule {
  float scale, cap;
  std::int32_t window;
  const float* sinks;
  bool operator==(const Rule&) const = default;
};
/// Row by row: each split of a sequence gives its maximum, its sum and its weighted values, [t, h, splits, e + 2].
struct Attend {
  Sites sites;
  Heads q;
  Cache cache;
  Rule rule;
  Heads y;
  float* parts;
  std::int32_t splits;  ///< enough for the longest of the rows
  bool operator==(const Attend&) const = default;
};
/// Rows that follow each other in one sequence: `count` from row `first` on.
struct Run {
  std::int32_t first, count;
  bool operator==(const Run&) const = default;
};
/// The same for runs of rows of prompts, many at a time.
struct AttendRuns {
  Sites sites;
  Heads q;
  Cache cache;
  Rule rule;
  Heads y;
  const Run* runs;
  std::int32_t run_count, longest;  ///< rows of the longest run
  bool operator==(const AttendRuns&) const = default;
};

/// The tokens of a chunk, which one block mixes and looks through.
inline constexpr std::int32_t chunk_tokens = 4096;
[[nodiscard]] constexpr std::int32_t token_chunks(std::int32_t v) noexcept {
  return (v + chunk_tokens - 1) / chunk_tokens;
}

/// Where a token is to be: its noise is a function of seed and position, and it follows seen[seen_begin … seen_end).
struct TokenSite {
  std::uint64_t seed;
  std::int64_t position;
  std::int32_t seen_begin, seen_end;
};
/// Of a chunk of logits: the greatest, and Σ exp(x - greatest).
struct TokenSum {
  double sum;
  float greatest, unused;
};
/// The likeliest token, and which may be chosen: those nearer to it in log p, or as near with a key of at least
/// `least`.
struct TokenBound {
  std::uint64_t least;
  std::int32_t nearness;
  std::int32_t best;  ///< -1: none
  float best_log_p;
  std::int32_t unused;
};
/// The noisiest token of a chunk; -1: none.
struct TokenDraw {
  double score;
  std::int32_t id, unused;
};
struct ChosenToken {
  std::int32_t id;
  float log_p;
};
/// As finteam::NextTokens, and what its kernels hand on to each other.
struct NextToken {
  const float* const* logits;  ///< [rows, experts]
  const double* weight;        ///< [experts]
  std::int32_t rows, experts, v, mixes_logits;
  const std::int32_t* absent;
  std::int32_t absent_count;
  std::int32_t top_k;
  float temperature, top_p, min_p, repetition_penalty;
  const TokenSite* sites;    ///< [rows]
  const std::int32_t* seen;  ///< with room for seen_room ids
  std::int32_t seen_room;
  float* log_p;        ///< [rows, v]
  float* unpenalised;  ///< [rows, seen_room]: what log_p was of each
  TokenSum* sums;      ///< [rows, sums_each(), chunks()]
  TokenBound* bounds;  ///< [rows]
  TokenDraw* draws;    ///< [rows, chunks()]
  ChosenToken* to;     ///< [rows]
  bool operator==(const NextToken&) const = default;

  [[nodiscard]] constexpr std::int32_t chunks() const noexcept { return token_chunks(v); }
  [[nodiscard]] constexpr std::int32_t sums_each() const noexcept { return mixes_logits != 0 ? 1 : experts; }
};
/// to[i] = x[row of token i, its id] - log Σ_j exp(x[row,j])
struct LogP {
  Rows x;
  const std::int32_t* tokens;  ///< [count, 2]: row, id
  std::int32_t count;
  TokenSum* sums;  ///< [x.count, chunks]
  double* to;      ///< [count]
  bool operator==(const LogP&) const = default;
};

}  // namespace finteam::cuda_v0_1
