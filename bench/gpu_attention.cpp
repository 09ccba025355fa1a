// How fast is attention on a GPU: of one generated row over 2,048, 8,192 and 32,768 positions beside reading their keys
// and values, of a prompt of 2,048 rows beside its operations? Layers take turns, so that no cache holds them.
#include "gpu.hpp"
#include "gpu_weights.hpp"
#include "harness.hpp"
#include "shape.hpp"

#include <finteam/backend/reference.hpp>
#include <finteam/layer/kv_cache.hpp>

#include <cmath>

namespace bench {

using namespace finteam;

namespace {

/// Numbers of deviation 1 for positions first … first + count - 1. [count, heads, e]
Tensor<float, 3> numbers(std::uint64_t seed, index_t first, index_t count, index_t heads, index_t e) {
  static const RandomValues values(0.0F);
  Tensor<float, 3> x({count, heads, e});
  std::vector<bf16> drawn(static_cast<std::size_t>(x.size()));
  values.fill(seed, static_cast<std::uint64_t>(first * heads * e), drawn.data(), drawn.size());
  std::transform(drawn.begin(), drawn.end(), x.data(), [](bf16 v) { return 50 * to_float(v); });
  return x;
}

CacheLimits limits_of(const Config& c, CacheFormat format, index_t tokens, index_t layers) {
  return {.layers = layers,
          .kv_heads = c.g,
          .head_dim = c.e,
          .sequences = 1,
          .tokens = tokens,
          .pages = KvCache<Reference>::pages_for(tokens),
          .format = format};
}

template <class B>
std::vector<Site> sites(const KvCache<B>& cache, index_t first, index_t count) {
  std::vector<Site> all;
  for (index_t p = first; p < first + count; ++p) all.push_back(cache.site(0, static_cast<std::int32_t>(p)));
  return all;
}

class AttentionOnGpu {
 public:
  AttentionOnGpu(const GpuRun& run, CacheFormat format, index_t tokens)
      : c_(run.config()),
        tokens_(tokens),
        b_(CudaOptions{.device = run.options().device}),
        most_rows_(run.positions(2048)),
        layers_(static_cast<index_t>(std::ceil(run.much(cold_bytes) / layer_bytes(format)))),
        cache_(b_, limits_of(c_, format, tokens, layers_)),
        reference_(oracle_, limits_of(c_, format, tokens, 1)),
        q_(b_.tensor<float, 3>({most_rows_, c_.h, c_.e}, nullptr)),
        y_(b_.tensor<float, 3>({most_rows_, c_.h, c_.e}, nullptr)) {
    cache_.extend(cache_.open(), tokens);
    reference_.extend(reference_.open(), tokens);
    fill();
  }

  [[nodiscard]] index_t layers() const { return layers_; }
  /// Of one layer.
  [[nodiscard]] double bytes() const { return layer_bytes(format_of_cache()); }

  /// The last `rows` positions.
  void choose(RowKind kind, index_t rows) {
    kind_ = kind;
    rows_ = rows;
    copy_in(numbers(3, tokens_ - rows, rows, c_.h, c_.e), q_);
    sites_ = sites(cache_, tokens_ - rows, rows);
  }
  /// In each layer, so many times.
  void record(index_t turns) {
    b_.begin(kind_);
    for (index_t i = 0; i < turns * layers_; ++i) {
      b_.attention(sites_, q_.view().rows(0, rows_), cache_.layer(i % layers_), {.scale = scale()},
                   y_.view().rows(0, rows_));
    }
  }
  void wait() {
    float number;
    b_.to_host(MatrixView<const float, Device>(y_.data(), {1, 1}), {&number, {1, 1}});
  }

  /// Some rows beside the reference backend's.
  [[nodiscard]] Verdict check() {
    record(1);
    const index_t width = c_.h * c_.e;
    Tensor<float, 2> y({rows_, width});
    b_.to_host(MatrixView<const float, Device>(y_.data(), {rows_, width}), y.view());
    std::vector<float> found, expected;
    for (index_t r = 0; r < rows_; r += std::max<index_t>(1, (rows_ - 1) / 4)) {
      const index_t position = tokens_ - rows_ + r;
      const auto q = numbers(3, position, 1, c_.h, c_.e);
      Tensor<float, 3> one({1, c_.h, c_.e});
      oracle_.attention(sites(reference_, position, 1), q.view(), reference_.layer(0), {.scale = scale()}, one.view());
      expected.insert(expected.end(), one.data(), one.data() + width);
      found.insert(found.end(), y.data() + r * width, y.data() + (r + 1) * width);
    }
    // A weight that is rounded is off by 2^-9 of itself, or by 1/510 of its page's greatest.
    return {.against = "the reference backend on " + std::to_string(found.size() / static_cast<std::size_t>(width)) +
                       " rows, root mean square",
            .error = mean_error(found, expected),
            .allowed = 0.02};
  }

 private:
  static constexpr double cold_bytes = 1 << 29;

  [[nodiscard]] CacheFormat format_of_cache() { return cache_.layer(0).format; }
  [[nodiscard]] CacheFormat format_of_cache() const { return const_cast<AttentionOnGpu*>(this)->format_of_cache(); }
  [[nodiscard]] double layer_bytes(CacheFormat format) const {
    return static_cast<double>(c_.g * KvCache<Cuda>::pages_for(tokens_) * Cuda::page_bytes(format, c_.e));
  }
  [[nodiscard]] float scale() const { return 1.0F / std::sqrt(static_cast<float>(c_.e)); }

  void copy_in(const Tensor<float, 3>& x, DeviceTensor<float, 3>& to) {
    finteam::detail::check(finteam::detail::cuda::copy_in(b_.context()->get(), to.data(), x.data(),
                                                          4 * static_cast<std::size_t>(x.size())),
                           "rows to be copied");
    wait();
  }

  /// The same keys and values in every layer, and in the reference's.
  void fill() {
    auto k = b_.tensor<float, 3>({most_rows_, c_.g, c_.e}, nullptr), v = b_.tensor<float, 3>(k_extents(), nullptr);
    for (index_t first = 0; first < tokens_; first += most_rows_) {
      const index_t count = std::min(most_rows_, tokens_ - first);
      const auto host_k = numbers(1, first, count, c_.g, c_.e), host_v = numbers(2, first, count, c_.g, c_.e);
      copy_in(host_k, k);
      copy_in(host_v, v);
      const auto at = sites(cache_, first, count);
      b_.begin(RowKind::prompt);
      for (index_t l = 0; l < layers_; ++l) {
        b_.cache_write(at, std::as_const(k).view().rows(0, count), std::as_const(v).view().rows(0, count),
                       cache_.layer(l));
      }
      wait();
      oracle_.cache_write(sites(reference_, first, count), host_k.view(), host_v.view(), reference_.layer(0));
    }
  }
  [[nodiscard]] std::array<index_t, 3> k_extents() const { return {most_rows_, c_.g, c_.e}; }

  Config c_;
  index_t tokens_;
  Cuda b_;
  Reference oracle_;
  index_t most_rows_, layers_;
  KvCache<Cuda> cache_;
  KvCache<Reference> reference_;
  DeviceTensor<float, 3> q_, y_;
  std::vector<Site> sites_;
  RowKind kind_ = RowKind::generated;
  index_t rows_ = 0;
};

void ask(GpuRun& run, CacheFormat format, RowKind kind, index_t tokens, index_t rows) {
  const bool prompt = kind == RowKind::prompt;
  const std::string cache(finteam::name(format));
  const std::string name = "attention, " + std::string(prompt ? "prompt" : "decode") + " " + std::to_string(tokens);
  if (!run.wants(name, cache, rows, tokens)) return;
  AttentionOnGpu attention(run, format, tokens);
  attention.choose(kind, rows);
  const double r = static_cast<double>(rows), t = static_cast<double>(tokens);
  const double flops = attention_flops(run.config(), r * t - r * (r - 1) / 2);
  const double least = run.much(prompt ? 2e12 : 8e9) / (prompt ? flops : attention.bytes());
  const auto turns = static_cast<index_t>(std::ceil(least / static_cast<double>(attention.layers())));
  run.measure({.work = {.name = name,
                        .weights = cache,
                        .rows = rows,
                        .tokens = r,
                        .bytes = prompt ? 0.0 : attention.bytes(),
                        .flops = flops,
                        .steps = static_cast<double>(turns * attention.layers()),
                        .with_recording = false,
                        .more = {{"context", tokens}, {"cache", cache}}},
               .check = [&] { return attention.check(); },
               .record = [&] { attention.record(turns); },
               .run = [&] { attention.wait(); }});
}

}  // namespace

void gpu_attention(GpuRun& run) {
  for (const CacheFormat format : {CacheFormat::bf16, CacheFormat::int8}) {
    for (const index_t tokens : {2048, 8192, 32768}) {
      ask(run, format, RowKind::generated, run.positions(tokens), 1);
    }
    const index_t prompt = run.positions(2048);
    ask(run, format, RowKind::prompt, prompt, prompt);
  }
}

}  // namespace bench
