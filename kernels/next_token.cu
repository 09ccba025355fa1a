// The next token: what the experts' logits are together, and which token is chosen of it. Blocks of 4,096 tokens mix
// and draw; one block for each row sees the whole vocabulary, to find the likeliest tokens. Bound by launches: a row of
// 128k logits is half a megabyte. Not here: penalties' and stops' bookkeeping, which is the host's.
#include "numbers.cuh"

#include <finteam/text/philox.hpp>

#include <cmath>
#include <limits>

namespace finteam::cuda_v0_1::kernels {
namespace {

inline constexpr int mix_threads = 256, mix_warps = mix_threads / warp_threads, mix_each = chunk_tokens / mix_threads;
inline constexpr std::size_t sum_bytes = mix_warps * (sizeof(double) + sizeof(float));
inline constexpr int look_threads = 1024, look_warps = look_threads / warp_threads, digits = 256;

/// Neither NaN nor -∞.
__device__ __forceinline__ bool is_possible(float x) { return x >= -std::numeric_limits<float>::max(); }

// --- the mixture ---------------------------------------------------------------------------------------------------

/// Logit of token i in one expert; of a product of experts, in all of them.
__device__ __forceinline__ float logit(const NextToken& p, const float* const* logits, int part, std::int64_t i) {
  if (p.mixes_logits == 0) return logits[part][i];
  double sum = 0;
  for (int k = 0; k < p.experts; ++k) sum = fma(p.weight[k], static_cast<double>(logits[k][i]), sum);
  return static_cast<float>(sum);
}

/// The sum of the block's chunk of v logits, x(i) each; thread 0's counts.
template <class Logit>
__device__ __forceinline__ TokenSum sum_of_chunk(int v, const Logit& logit) {
  const int thread = simt::thread(), warp = thread / warp_threads;
  auto* const sums = reinterpret_cast<double*>(simt::shared());
  auto* const greatest = reinterpret_cast<float*>(sums + mix_warps);
  float x[mix_each], most = -infinity();
  for (int j = 0; j < mix_each; ++j) {
    const int i = simt::block_x() * chunk_tokens + j * mix_threads + thread;
    x[j] = i < v ? logit(i) : -infinity();
    most = fmaxf(most, x[j]);
  }
  most = warp_max(most);
  if (thread % warp_threads == 0) greatest[warp] = most;
  simt::barrier();
  for (int w = 0; w < mix_warps; ++w) most = fmaxf(most, greatest[w]);
  double sum = 0;
  for (int j = 0; j < mix_each; ++j) sum += x[j] == -infinity() ? 0.0 : static_cast<double>(expf(x[j] - most));
  sum = warp_sum(sum);
  if (thread % warp_threads == 0) sums[warp] = sum;
  simt::barrier();
  sum = 0;
  for (int w = 0; w < mix_warps; ++w) sum += sums[w];
  return {sum, most, 0};
}

__global__ void __launch_bounds__(mix_threads) find_sums(NextToken p) {
  simt::begin();
  const int part = simt::block_y(), row = simt::block_z();
  const float* const* const logits = p.logits + static_cast<std::int64_t>(row) * p.experts;
  const TokenSum sum = sum_of_chunk(p.v, [&](int i) { return logit(p, logits, part, i); });
  if (simt::thread() != 0) return;
  p.sums[(static_cast<std::int64_t>(row) * p.sums_each() + part) * p.chunks() + simt::block_x()] = sum;
}
__global__ void __launch_bounds__(mix_threads) find_row_sums(LogP p) {
  simt::begin();
  const int row = simt::block_y();
  const float* const x = kernels::row(p.x, row);
  const TokenSum sum = sum_of_chunk(p.x.n, [&](int i) { return x[i]; });
  if (simt::thread() == 0) p.sums[static_cast<std::int64_t>(row) * simt::blocks_x() + simt::block_x()] = sum;
}

/// log Σ_i exp(x[i]) over all chunks, by a warp.
__device__ __forceinline__ double log_sum(const TokenSum* sums, int chunks) {
  const int lane = simt::thread() % warp_threads;
  float most = -infinity();
  for (int c = lane; c < chunks; c += warp_threads) most = fmaxf(most, sums[c].greatest);
  most = warp_max(most);
  double sum = 0;
  for (int c = lane; c < chunks; c += warp_threads) {
    const bool empty = sums[c].sum == 0;
    sum += empty ? 0.0 : sums[c].sum * exp(static_cast<double>(sums[c].greatest) - static_cast<double>(most));
  }
  return static_cast<double>(most) + log(warp_sum(sum));
}

/// A warp for each token.
__global__ void __launch_bounds__(warp_threads) find_log_p(LogP p) {
  simt::begin();
  const int i = simt::block_x(), row = p.tokens[2 * i], id = p.tokens[2 * i + 1], chunks = token_chunks(p.x.n);
  const double sum = log_sum(p.sums + static_cast<std::int64_t>(row) * chunks, chunks);
  if (simt::thread() == 0) p.to[i] = static_cast<double>(kernels::row(p.x, row)[id]) - sum;
}

/// log Σ_k weight[k] · exp(logits[k][i] - total[k]). Source: mix_probabilities of mix/mixture.hpp.
__device__ __forceinline__ float mixed(const NextToken& p, const float* const* logits, const double* total, int i) {
  const auto log_p = [&](int k) { return static_cast<float>(static_cast<double>(logit(p, logits, k, i)) - total[k]); };
  if (p.sums_each() == 1) return log_p(0);
  float most = -infinity();
  for (int k = 0; k < p.experts; ++k) most = fmaxf(most, log_p(k));
  float sum = 0, sum_minus_one = 0;
  for (int k = 0; k < p.experts; ++k) {
    const float d = log_p(k) - most;
    const auto weight = static_cast<float>(fmax(p.weight[k], 0x1p-100));
    sum = fmaf(weight, expf(d), sum);
    sum_minus_one = fmaf(weight, expm1f(d), sum_minus_one);
  }
  if (most == -infinity() && sum != sum) {  // nothing but -∞ gave it, or a NaN
    for (int k = 0; k < p.experts; ++k) most += log_p(k);
    return most;
  }
  return most + (sum_minus_one >= -0.29289322F ? log1pf(sum_minus_one) : logf(sum));
}

__global__ void __launch_bounds__(mix_threads) mix(NextToken p) {
  simt::begin();
  const int chunk = simt::block_x(), row = simt::block_y(), thread = simt::thread();
  auto* const total = reinterpret_cast<double*>(simt::shared());
  const float* const* const logits = p.logits + static_cast<std::int64_t>(row) * p.experts;
  for (int part = thread / warp_threads; part < p.sums_each(); part += mix_warps) {
    const double sum =
        log_sum(p.sums + (static_cast<std::int64_t>(row) * p.sums_each() + part) * p.chunks(), p.chunks());
    if (thread % warp_threads == 0) total[part] = sum;
  }
  simt::barrier();
  float* const y = p.log_p + static_cast<std::int64_t>(row) * p.v;
  const int first = chunk * chunk_tokens, last = first + chunk_tokens < p.v ? first + chunk_tokens : p.v;
  for (int i = first + thread; i < last; i += mix_threads) y[i] = mixed(p, logits, total, i);
  simt::barrier();
  for (int a = thread; a < p.absent_count; a += mix_threads) {
    if (p.absent[a] >= first && p.absent[a] < last) y[p.absent[a]] = -infinity();
  }
}

// --- what may be chosen --------------------------------------------------------------------------------------------

/// What orders tokens: likelier first, of equals the lower id. 0: it cannot be chosen.
__device__ __forceinline__ std::uint64_t key_of(float x, int id) {
  if (!is_possible(x)) return 0;
  const auto u = bits<std::uint32_t>(x + 0.0F);  // -0 is 0
  const std::uint32_t ordered = u >> 31 != 0 ? ~u : u | 0x80000000U;
  return static_cast<std::uint64_t>(ordered) << 32 | (0xFFFFFFFFU - static_cast<std::uint32_t>(id));
}
/// How near x is to the likeliest token's log p, in eighths of a nat: it never falls as x grows, and spreads tokens
/// over many numbers where the leading bits of their keys are few.
__device__ __forceinline__ int nearness(float best, float x) {
  return digits - 1 - static_cast<int>(fminf((best - x) * 8.0F, static_cast<float>(digits - 1)));
}
__device__ __forceinline__ bool is_kept(const TokenBound& bound, float x, int id) {
  const std::uint64_t key = key_of(x, id);
  if (key == 0) return false;
  const int near = nearness(bound.best_log_p, x);
  return near > bound.nearness || (near == bound.nearness && key >= bound.least);
}

/// f(x[i], i) for each token of a row, by a thread each, eight loads at a time.
template <class F>
__device__ __forceinline__ void each_token(const float* x, int v, const F& f) {
  constexpr int some = 8;
  for (int first = simt::thread(); first < v; first += some * look_threads) {
    float y[some];
#pragma unroll
    for (int j = 0; j < some; ++j) {
      const int i = first + j * look_threads;
      y[j] = i < v ? x[i] : -infinity();
    }
#pragma unroll
    for (int j = 0; j < some; ++j) f(y[j], first + j * look_threads);
  }
}

/// Tokens by one digit of what orders them: how many, and what they weigh, as two halves of 32 bits.
struct Histogram {
  std::uint32_t count[digits], low[digits], high[digits];
  std::uint64_t weight[warp_threads];
  std::uint32_t chosen, is_last;
  std::uint64_t above, wanted;
};

/// The digit at which the tokens from the greatest digit down weigh h.wanted, or together with those above so far.
__device__ __forceinline__ void find_digit(Histogram& h) {
  const auto weight_of = [&](int d) { return static_cast<std::uint64_t>(h.high[d]) << 32 | h.low[d]; };
  constexpr int each = digits / warp_threads;
  int d = digits - 1;
  std::uint64_t above = h.above;
  for (int group = 0; group < warp_threads - 1 && above + h.weight[group] < h.wanted; ++group, d -= each) {
    above += h.weight[group];
  }
  for (; d > 0 && above + weight_of(d) < h.wanted; --d) above += weight_of(d);
  h.chosen = static_cast<std::uint32_t>(d);
  h.is_last = h.count[d] <= 1 || above + weight_of(d) == h.wanted ? 1 : 0;
  h.above = above;
}

/// Narrows a bound to the fewest of the likeliest tokens that weigh wanted(what all within it weigh). weigh(x) ≥ 0;
/// their sum is below 2^63, and exact, so that no order matters.
template <class Weigh, class Wanted>
__device__ __forceinline__ void narrow(const float* x, int v, TokenBound& bound, Histogram& h, const Weigh& weigh,
                                       const Wanted& wanted) {
  const TokenBound within = bound;
  const int thread = simt::thread();
  std::uint64_t prefix = 0;
  if (thread == 0) h.above = 0;
  for (int level = 0; level <= 8; ++level) {
    const int shift = 64 - 8 * level;
    if (thread < digits) h.count[thread] = h.low[thread] = h.high[thread] = 0;
    simt::barrier();
    each_token(x, v, [&](float y, int i) {
      if (!is_kept(within, y, i)) return;
      int digit = nearness(within.best_log_p, y);
      if (level > 0) {
        const std::uint64_t key = key_of(y, i);
        if (digit != bound.nearness || (level > 1 && key >> (shift + 8) != prefix)) return;
        digit = static_cast<int>(key >> shift & (digits - 1));
      }
      const std::uint64_t weight = weigh(y);
      const auto low = static_cast<std::uint32_t>(weight);
      const std::uint32_t before = simt::add_shared(&h.low[digit], low);
      const std::uint32_t high = static_cast<std::uint32_t>(weight >> 32) + (before + low < before ? 1U : 0U);
      if (high != 0) simt::add_shared(&h.high[digit], high);
      simt::add_shared(&h.count[digit], 1);
    });
    simt::barrier();
    if (thread < warp_threads) {
      std::uint64_t sum = 0;
      for (int j = 0; j < digits / warp_threads; ++j) {
        const int d = digits - 1 - thread * (digits / warp_threads) - j;
        sum += static_cast<std::uint64_t>(h.high[d]) << 32 | h.low[d];
      }
      h.weight[thread] = sum;
    }
    simt::barrier();
    if (thread == 0) {
      if (level == 0) {
        std::uint64_t total = 0;
        for (int g = 0; g < warp_threads; ++g) total += h.weight[g];
        h.wanted = wanted(total);
      }
      find_digit(h);
    }
    simt::barrier();
    const std::uint64_t digit = h.chosen;
    if (level == 0) {
      bound.nearness = static_cast<int>(digit);
      bound.least = 1;
    } else {
      prefix = prefix << 8 | digit;
      bound.least = prefix << shift;
    }
    const bool is_last = h.is_last != 0;
    simt::barrier();
    if (is_last) break;
  }
  // a bound that fell together with the one it narrows
  if (bound.nearness == within.nearness && bound.least < within.least) bound.least = within.least;
}

/// log_p of what was seen, penalised; what it was is kept. A token that comes twice is penalised once.
__device__ __forceinline__ void penalise(const NextToken& p, const TokenSite& site, float* x, float* before) {
  for (int i = site.seen_begin + simt::thread(); i < site.seen_end; i += look_threads) before[i] = x[p.seen[i]];
  simt::barrier();
  for (int i = site.seen_begin + simt::thread(); i < site.seen_end; i += look_threads) {
    x[p.seen[i]] = before[i] < 0 ? before[i] * p.repetition_penalty : before[i] / p.repetition_penalty;
  }
  simt::barrier();
}

/// The greatest key of a row, the same in every thread. shared: [look_warps]
__device__ __forceinline__ std::uint64_t greatest_key(const float* x, int v, std::uint64_t* shared) {
  std::uint64_t most = 0;
  const auto see = [&](std::uint64_t key) { most = key > most ? key : most; };
  each_token(x, v, [&](float y, int i) { see(key_of(y, i)); });
  for (int mask = 16; mask > 0; mask /= 2) see(simt::exchange(most, mask));
  if (simt::thread() % warp_threads == 0) shared[simt::thread() / warp_threads] = most;
  simt::barrier();
  for (int w = 0; w < look_warps; ++w) see(shared[w]);
  simt::barrier();
  return most;
}

__global__ void __launch_bounds__(look_threads) find_bounds(NextToken p) {
  simt::begin();
  const int row = simt::block_x();
  float* const x = p.log_p + static_cast<std::int64_t>(row) * p.v;
  Histogram& h = *reinterpret_cast<Histogram*>(simt::shared());
  if (p.seen_room != 0) penalise(p, p.sites[row], x, p.unpenalised + static_cast<std::int64_t>(row) * p.seen_room);
  const std::uint64_t best = greatest_key(x, p.v, h.weight);
  const auto id = static_cast<std::int32_t>(0xFFFFFFFFU - static_cast<std::uint32_t>(best));
  TokenBound bound{1, 0, best == 0 ? -1 : id, best == 0 ? -infinity() : x[id], 0};
  if (!(bound.best_log_p < infinity())) bound.best = -1;
  if (bound.best >= 0 && p.temperature > 0) {
    if (p.top_k > 0) {
      const auto k = static_cast<std::uint64_t>(p.top_k);
      narrow(
          x, p.v, bound, h, [](float) { return std::uint64_t{1}; },
          [&](std::uint64_t all) { return k < all ? k : all; });
    }
    if (p.top_p < 1) {
      // masses as fixed-point numbers, as exact as all of them together leave room for
      int room = 62;
      while (room > 0 && (p.v >> (62 - room)) != 0) --room;
      const float one = ldexpf(1.0F, room), best_log_p = bound.best_log_p;
      narrow(
          x, p.v, bound, h,
          [&](float y) { return static_cast<std::uint64_t>(expf((y - best_log_p) / p.temperature) * one); },
          [&](std::uint64_t all) {
            const auto part = static_cast<std::uint64_t>(ceil(static_cast<double>(p.top_p) * static_cast<double>(all)));
            return part < all ? part : all;
          });
    }
  }
  if (simt::thread() == 0) p.bounds[row] = bound;
}

// --- which one is --------------------------------------------------------------------------------------------------

__device__ __forceinline__ bool is_noisier(const TokenDraw& a, const TokenDraw& b) {
  if (a.id < 0 || b.id < 0) return b.id < 0 && a.id >= 0;
  return a.score > b.score || (a.score == b.score && a.id < b.id);
}
/// The noisiest of a warp's.
__device__ __forceinline__ TokenDraw noisiest(TokenDraw mine) {
  for (int mask = 16; mask > 0; mask /= 2) {
    const TokenDraw other{simt::exchange(mine.score, mask), simt::exchange(mine.id, mask), 0};
    if (is_noisier(other, mine)) mine = other;
  }
  return mine;
}

/// argmax_i log_p[i] / temperature + gumbel(seed, position, i) over a chunk. A token can only beat another if its u is
/// high enough, which is seen without a logarithm. Source: Sampler::noisy_argmax of text/sampler.hpp.
__global__ void __launch_bounds__(mix_threads) draw(NextToken p) {
  simt::begin();
  const int chunk = simt::block_x(), row = simt::block_y(), thread = simt::thread();
  const float* const x = p.log_p + static_cast<std::int64_t>(row) * p.v;
  const TokenBound bound = p.bounds[row];
  const TokenSite site = p.sites[row];
  const double best = static_cast<double>(bound.best_log_p), temperature = static_cast<double>(p.temperature);
  const double least = p.min_p > 0 ? temperature * log(static_cast<double>(p.min_p)) : -HUGE_VAL;
  TokenDraw mine{-HUGE_VAL, -1, 0};
  for (int j = 0; j < mix_each && bound.best >= 0; ++j) {
    const int i = chunk * chunk_tokens + j * mix_threads + thread;
    if (i >= p.v || !is_kept(bound, x[i], i) || static_cast<double>(x[i]) - best < least) continue;
    const double plain = static_cast<double>(x[i]) / temperature;
    const double u = uniform(site.seed, site.position, i);
    const double slack = 0x1p-10 + 0x1p-48 * (fabs(plain) + fabs(mine.score));
    if (1 - u > static_cast<double>(expf(static_cast<float>(plain - mine.score + slack)))) continue;
    const TokenDraw other{plain - log(-log(u)), i, 0};
    if (is_noisier(other, mine)) mine = other;
  }
  auto* const draws = reinterpret_cast<TokenDraw*>(simt::shared());
  mine = noisiest(mine);
  if (thread % warp_threads == 0) draws[thread / warp_threads] = mine;
  simt::barrier();
  if (thread >= warp_threads) return;
  mine = noisiest(thread < mix_warps ? draws[thread] : TokenDraw{0, -1, 0});
  if (thread == 0) p.draws[static_cast<std::int64_t>(row) * p.chunks() + chunk] = mine;
}

/// A warp for each row: the token, and its log p before any penalty.
__global__ void __launch_bounds__(warp_threads) choose(NextToken p) {
  simt::begin();
  const int row = simt::block_x(), lane = simt::thread();
  std::int32_t id = p.bounds[row].best;
  if (p.temperature > 0 && id >= 0) {
    TokenDraw mine{0, -1, 0};
    for (int c = lane; c < p.chunks(); c += warp_threads) {
      const TokenDraw& other = p.draws[static_cast<std::int64_t>(row) * p.chunks() + c];
      if (is_noisier(other, mine)) mine = other;
    }
    id = noisiest(mine).id;
  }
  float log_p = id < 0 ? not_a_number() : p.log_p[static_cast<std::int64_t>(row) * p.v + id];
  const TokenSite site = p.sites[row];
  std::uint32_t found = 0;  // one more than where it was seen
  for (int i = site.seen_begin + lane; i < site.seen_end && p.seen_room != 0; i += warp_threads) {
    if (p.seen[i] == id) found = static_cast<std::uint32_t>(i) + 1;
  }
  found = warp_max(found);
  if (found != 0) log_p = p.unpenalised[static_cast<std::int64_t>(row) * p.seen_room + found - 1];
  if (lane == 0) p.to[row] = {id, log_p};
}

}  // namespace
}  // namespace finteam::cuda_v0_1::kernels

namespace finteam::cuda_v0_1 {

Status run(Context* c, const LogP& p) noexcept {
  if (p.count == 0) return {};
  const Stream stream = stream_of(c);
  const Status s = kernels::launch(kernels::find_row_sums,
                                   {static_cast<unsigned>(token_chunks(p.x.n)), static_cast<unsigned>(p.x.count), 1},
                                   kernels::mix_threads, kernels::sum_bytes, stream, p);
  if (!s.ok()) return s;
  return kernels::launch(kernels::find_log_p, {static_cast<unsigned>(p.count), 1, 1}, kernels::warp_threads, 0, stream,
                         p);
}

Status run(Context* c, const NextToken& p) noexcept {
  if (p.rows == 0) return {};
  const auto chunks = static_cast<unsigned>(p.chunks()), parts = static_cast<unsigned>(p.sums_each()),
             rows = static_cast<unsigned>(p.rows);
  const Stream stream = stream_of(c);
  Status s =
      kernels::launch(kernels::find_sums, {chunks, parts, rows}, kernels::mix_threads, kernels::sum_bytes, stream, p);
  if (s.ok()) {
    s = kernels::launch(kernels::mix, {chunks, rows, 1}, kernels::mix_threads, parts * sizeof(double), stream, p);
  }
  if (s.ok()) {
    s = kernels::launch(kernels::find_bounds, {rows, 1, 1}, kernels::look_threads, sizeof(kernels::Histogram), stream,
                        p);
  }
  if (s.ok() && p.temperature > 0) {
    s = kernels::launch(kernels::draw, {chunks, rows, 1}, kernels::mix_threads, kernels::mix_warps * sizeof(TokenDraw),
                        stream, p);
  }
  if (s.ok()) s = kernels::launch(kernels::choose, {rows, 1, 1}, kernels::warp_threads, 0, stream, p);
  return s;
}

}  // namespace finteam::cuda_v0_1
