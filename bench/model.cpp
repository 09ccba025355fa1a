// The engine as the benches use it: see model.hpp. What changes with the library's interface changes here.
#include "model.hpp"

#include "random_checkpoint.hpp"
#include "shape.hpp"

#include <finteam/finteam.hpp>

#include <cmath>
#include <optional>

namespace bench {

using namespace finteam;

// --- formats ---------------------------------------------------------------------------------------------------------

namespace {

constexpr std::array all_weights = {Weights::int4, Weights::int8, Weights::bf16, Weights::int4_zero, Weights::stored};

constexpr std::array all_caches = {CacheFormat::bf16, CacheFormat::int8, CacheFormat::f32};

CacheFormat cache_of(const std::string& text) {
  return *std::find_if(all_caches.begin(), all_caches.end(), [&](CacheFormat f) { return name(f) == text; });
}

Weights weights_of(const std::string& text) {
  return *std::find_if(all_weights.begin(), all_weights.end(), [&](Weights w) { return name(w) == text; });
}

constexpr std::array all_deltas = {Format::int1, Format::int2};

/// Of a matrix that a file holds in bf16, or of a difference.
Format format_of(const std::string& weights) {
  for (const Format f : all_deltas) {
    if (name(f) == weights) return f;
  }
  const RawTensor bf16{nullptr, DType::bf16, {}};
  return finteam::format_of(weights_of(weights), {&bf16, 1});
}

}  // namespace

std::vector<std::string> weight_formats() {
  std::vector<std::string> names;
  for (const Weights w : all_weights) names.emplace_back(name(w));
  return names;
}
std::vector<std::string> delta_formats() {
  std::vector<std::string> names;
  for (const Format f : all_deltas) names.emplace_back(name(f));
  return names;
}
std::vector<std::string> cache_formats() {
  std::vector<std::string> names;
  for (const CacheFormat f : all_caches) names.emplace_back(name(f));
  return names;
}

Peak peak_of(const std::string& weights) {
  const Format format = format_of(weights);
  return is_quantised(format) ? Peak::int8 : format == Format::bf16 ? Peak::bf16 : Peak::f32;
}

double packed_bytes(index_t n, index_t k, const std::string& weights) {
  return static_cast<double>((n + panel_outputs - 1) / panel_outputs * panel_bytes(format_of(weights), k));
}

double cache_bytes(const Config& c, const std::string& cache) {
  return static_cast<double>(c.g * KvPage::bytes(cache_of(cache), c.e)) / page_tokens;
}

std::vector<Product> block_products(const Config& c) {
  return {{"qkv_proj", (c.h + 2 * c.g) * c.e, c.d},
          {"o_proj", c.d, c.h * c.e},
          {"gate_up_proj", 2 * c.f, c.d},
          {"down_proj", c.d, c.f}};
}

Product head_product(const Config& c) { return {"lm_head", c.v, c.d}; }

bool has_packed_files() { return true; }

namespace {

OpenOptions open_options(const Run& run, bool from_packed) {
  OpenOptions options{.weights = weights_of(run.options.weights)};
  if (from_packed) options.packed = run.options.models / "packed";
  return options;
}

/// y = x · w, as a decoder does it.
void multiply(Cpu& b, MatrixView<const float> x, const Cpu::Matrix& w, Cpu::Input& input, MatrixView<float> y) {
  b.prepare(x, w, input);
  b.matmul(input, w, Write::overwrite, y);
}

CacheLimits cache_limits(const Run& run, const Config& c, index_t layers, index_t sequences, index_t tokens) {
  return {.layers = layers,
          .kv_heads = c.g,
          .head_dim = c.e,
          .sequences = sequences,
          .tokens = tokens,
          .pages = sequences * KvCache<Cpu>::pages_for(tokens),
          .format = cache_of(run.options.cache)};
}

// --- what does not change --------------------------------------------------------------------------------------------

[[noreturn]] void refuse_result(const std::string& what) {
  throw Error(Code::system, "bench: " + what, "the same finite numbers alone and together", "others");
}

/// Throws if the packed weights of so many roles would not fit in memory.
void require_memory(const Run& run, const Config& c, index_t roles) {
  const double need = static_cast<double>(roles) * step_weight_bytes(c, run.options.weights) *
                      (c.tie_word_embeddings ? 1.0 : 1.0 + head_weights(c) / (block_weights(c) + head_weights(c)));
  const double have = proc_bytes("/proc/meminfo", "MemAvailable");
  if (have > 0 && need * 1.1 > have) {
    throw Error(Code::limit_exceeded, run.options.shape + " in " + run.options.weights,
                std::to_string(need * 1.1 / 1e9) + " GB of free memory", std::to_string(have / 1e9) + " GB");
  }
}

/// Numbers of a normal distribution with deviation 0.02.
template <std::size_t Rank>
Tensor<float, Rank> random_tensor(std::array<index_t, Rank> extents, std::uint64_t seed) {
  Tensor<float, Rank> t(extents);
  const RandomValues values(0.0F);
  std::vector<bf16> drawn(static_cast<std::size_t>(t.size()));
  values.fill(seed, 0, drawn.data(), drawn.size());
  std::transform(drawn.begin(), drawn.end(), t.data(), [](bf16 x) { return to_float(x); });
  return t;
}

/// Opens `sequences` sequences of `tokens` tokens in a cache, with random keys and values.
void fill_cache(Cpu& b, KvCache<Cpu>& cache, const Config& c, index_t layers, index_t sequences, index_t tokens) {
  const auto k = random_tensor<3>({page_tokens, c.g, c.e}, 1), v = random_tensor<3>({page_tokens, c.g, c.e}, 2);
  for (index_t s = 0; s < sequences; ++s) {
    const std::int32_t sequence = cache.open();
    cache.extend(sequence, tokens);
    for (index_t first = 0; first < tokens; first += page_tokens) {
      std::vector<Site> sites;
      for (index_t p = first; p < std::min(first + page_tokens, tokens); ++p) {
        sites.push_back(cache.site(sequence, static_cast<std::int32_t>(p)));
      }
      const auto t = static_cast<index_t>(sites.size());
      for (index_t l = 0; l < layers; ++l) {
        b.cache_write(sites, std::as_const(k).view().rows(0, t), std::as_const(v).view().rows(0, t), cache.layer(l));
      }
    }
  }
}

}  // namespace

double step_weight_bytes(const Config& c, const std::string& weights) {
  double bytes = 0;
  for (const Product& p : block_products(c)) bytes += packed_bytes(p.n, p.k, weights);
  const Product head = head_product(c);
  return static_cast<double>(c.layers) * bytes + packed_bytes(head.n, head.k, weights);
}

double cold_bytes(const Run& run) {
  return std::min(static_cast<double>(beyond_caches(run.pool.concurrency())),
                  step_weight_bytes(shape(run.options.shape), run.options.weights));
}

std::filesystem::path checkpoint_folder(const Run& run) {
  const Options& o = run.options;
  if (!std::filesystem::exists(o.models / o.shape)) say("writing random weights: " + (o.models / o.shape).string());
  return random_checkpoint(o.models, shape(o.shape), o.tokenizer);
}

index_t rows_of_step(const Run& run) { return run.options.rows != 0 ? run.options.rows : SessionLimits{}.rows; }

// --- an expert -------------------------------------------------------------------------------------------------------

struct Expert::Engine {
  Cpu b;
  Team<Cpu> team;
  const Decoder<Cpu>& decoder;
  const Config& c;
  KvCache<Cpu> cache;
  StepScratch<Cpu> scratch;
  Tensor<float, 2> hidden, logits;
  std::vector<Row> rows;

  Engine(const Run& run, index_t sequences, index_t tokens, index_t most_rows)
      : b(run.pool),
        team(open_team(checkpoint_folder(run), open_options(run, true), b)),
        decoder(team.decoder(0)),
        c(decoder.config()),
        cache(b, cache_limits(run, c, c.layers, sequences, tokens), huge_pages()),
        scratch(b, c, most_rows),
        hidden({most_rows, c.d}),
        logits({sequences, c.v}) {
    fill_cache(b, cache, c, c.layers, sequences, tokens);
  }
};

Expert::Expert(const Run& run, index_t sequences, index_t tokens, index_t rows) {
  require_memory(run, shape(run.options.shape), 1);
  const double start = now();
  engine_ = std::make_unique<Engine>(run, sequences, tokens, rows);
  say("opened " + run.options.shape + " in " + run.options.weights + ": " + std::to_string(now() - start) + " s");
}
Expert::~Expert() = default;

const Config& Expert::config() const { return engine_->c; }

void Expert::step(index_t sequences, index_t first, index_t count, index_t logits) {
  Engine& e = *engine_;
  e.rows.clear();
  for (index_t s = 0; s < sequences; ++s) {
    for (index_t i = 0; i < count; ++i) {
      e.rows.push_back({static_cast<std::int32_t>((17 * (first + i) + 31 * s + 5) % e.c.v),
                        static_cast<std::int32_t>(first + i), static_cast<std::int32_t>(s)});
    }
  }
  const auto t = static_cast<index_t>(e.rows.size());
  (void)e.decoder.forward(e.b, e.cache, e.rows, e.scratch, e.hidden.view().rows(0, t));
  if (logits > 0)
    e.decoder.logits(e.b, e.hidden.view().rows(t - logits, logits), e.scratch, e.logits.view().rows(0, logits));
}

void Expert::check() {
  constexpr index_t tokens = 4;
  const auto& logits = engine_->logits;
  step(1, 0, tokens, 1);
  const std::vector<float> whole(logits.data(), logits.data() + config().v);
  for (index_t i = 0; i < tokens; ++i) step(1, i, 1, 1);
  if (!std::isfinite(whole[0]) || !std::equal(whole.begin(), whole.end(), logits.data())) refuse_result("logits");
}

// --- a product -------------------------------------------------------------------------------------------------------

struct ProductBench::Engine {
  Cpu b;
  std::vector<Cpu::Matrix> copies;
  Tensor<float, 2> x, y;
  Cpu::Input input;
  std::size_t next = 0;
};

ProductBench::ProductBench(const Run& run, const Product& p, const std::string& format, index_t most_rows) {
  std::vector<bf16> values(static_cast<std::size_t>(p.n * p.k));
  RandomValues(0.0F).fill(3, 0, values.data(), values.size());
  const index_t extents[] = {p.n, p.k};
  const RawTensor raw{reinterpret_cast<const std::byte*>(values.data()), DType::bf16, extents};
  engine_ = std::make_unique<Engine>(Engine{Cpu(run.pool),
                                            {},
                                            random_tensor<2>({most_rows, p.k}, 4),
                                            Tensor<float, 2>({most_rows, p.n}),
                                            Cpu::Input(most_rows, p.k, std::pmr::get_default_resource()),
                                            0});
  // a difference of any numbers: bits are bits
  const std::vector<float> scales(static_cast<std::size_t>(p.n), 0.01F);
  const Format f = format_of(format);
  const RawDelta delta{raw.data, reinterpret_cast<const std::byte*>(scales.data()), p.n, p.n, p.k, f};
  const double bytes = packed_bytes(p.n, p.k, format);
  for (double held = 0; held < cold_bytes(run); held += bytes) {
    engine_->copies.push_back(is_delta(f)
                                  ? PackedMatrix(delta, huge_pages())
                                  : engine_->b.matrix({&raw, 1}, Join::stacked, weights_of(format), huge_pages()));
  }
}
ProductBench::~ProductBench() = default;

void ProductBench::run(index_t rows) {
  Engine& e = *engine_;
  multiply(e.b, e.x.view().rows(0, rows), e.copies[e.next++ % e.copies.size()], e.input, e.y.view().rows(0, rows));
}

void ProductBench::check(index_t rows) {
  run(rows);
  const auto row = engine_->y.view().row(0).span();
  const std::vector<float> together(row.begin(), row.end());
  run(1);
  if (!std::isfinite(together[0]) || !std::equal(row.begin(), row.end(), together.begin())) refuse_result("product");
}

// --- attention -------------------------------------------------------------------------------------------------------

struct AttentionBench::Engine {
  Config c;
  Cpu b;
  index_t layers, tokens;
  KvCache<Cpu> cache;
  Tensor<float, 3> q, y;
  std::vector<Site> sites;
  index_t next = 0;
};

AttentionBench::AttentionBench(const Run& run, index_t tokens) {
  const Config c = shape(run.options.shape);
  const double cold = static_cast<double>(beyond_caches(run.pool.concurrency()));
  const double layer = cache_bytes(c, run.options.cache) * static_cast<double>(tokens);
  const auto layers = static_cast<index_t>(std::ceil(cold / layer));
  Cpu b(run.pool);
  engine_ = std::make_unique<Engine>(Engine{c,
                                            b,
                                            layers,
                                            tokens,
                                            KvCache<Cpu>(b, cache_limits(run, c, layers, 1, tokens), huge_pages()),
                                            random_tensor<3>({tokens, c.h, c.e}, 5),
                                            Tensor<float, 3>({tokens, c.h, c.e}),
                                            {},
                                            0});
  fill_cache(b, engine_->cache, c, layers, 1, tokens);
}
AttentionBench::~AttentionBench() = default;

void AttentionBench::run(index_t rows) {
  Engine& e = *engine_;
  e.sites.clear();
  for (index_t p = e.tokens - rows; p < e.tokens; ++p) e.sites.push_back(e.cache.site(0, static_cast<std::int32_t>(p)));
  const AttentionRule rule{.scale = 1.0F / std::sqrt(static_cast<float>(e.c.e))};
  e.b.attention(e.sites, e.q.view().rows(0, rows), e.cache.layer(e.next++ % e.layers), rule, e.y.view().rows(0, rows));
}

// --- a desk ----------------------------------------------------------------------------------------------------------

struct Desk::Engine {
  Team<Cpu> team;
  Session<Cpu> session;
  Plan planned;
  double bytes;
  Engine(const Run& run, const std::filesystem::path& folder, index_t tokens)
      : team(open_team(folder, open_options(run, true), Cpu(run.pool))),
        session(team, {.tokens = tokens}, Cpu(run.pool)),
        planned(plan(folder, open_options(run, true), {.tokens = tokens})),
        bytes(awake_bytes(run)) {}

  /// The embedding is not read, unless it is the head as well.
  [[nodiscard]] double awake_bytes(const Run& run) {
    const Config& c = team.decoder(0).config();
    const double unread = c.tie_word_embeddings ? 0 : packed_bytes(c.v, c.d, run.options.weights);
    double sum = planned.base > 0 ? static_cast<double>(planned.base) - unread : 0;
    const Roles roles = session.complete("The", [](std::string_view) {}, {.max_tokens = 1}).roles;
    for (std::size_t k = 0; k < roles.size(); ++k) {
      if (!roles[k].awake && !c.is_routed()) continue;
      const double read = c.is_routed() ? static_cast<double>(c.experts_per_token) / static_cast<double>(c.experts) : 1;
      sum += read * static_cast<double>(planned.roles[k].weights) - (planned.base > 0 ? 0 : unread);
    }
    return sum;
  }
};

Desk::Desk(const Run& run, const std::filesystem::path& folder, index_t tokens) {
  const bool team = std::filesystem::exists(folder / "team.json");
  if (run.options.shape != "bundled-team") require_memory(run, shape(run.options.shape), team ? 3 : 1);
  engine_ = std::make_unique<Engine>(run, folder, tokens);
}
Desk::~Desk() = default;

const Config& Desk::config() const { return engine_->team.decoder(0).config(); }

Desk::Text Desk::generate(index_t tokens, bool draft, std::uint64_t seed) {
  const Generation& g = engine_->session.complete("The Committee", [](std::string_view) {},
                                                  {.max_tokens = tokens,
                                                   .sampling = {.temperature = 1, .seed = seed},
                                                   .draft = draft ? Draft::favourite : Draft::none});
  return {static_cast<index_t>(g.ids.size()), g.drafted, g.kept};
}

void Desk::read(index_t tokens) {
  std::string text;
  for (index_t i = 0; i < tokens; ++i) text += "a ";  // a token or two each
  while (static_cast<index_t>(engine_->team.tokenizer().encode(text).size()) > tokens) text.resize(text.size() - 2);
  (void)engine_->session.complete(text, [](std::string_view) {}, {.max_tokens = 1});
}

double Desk::bytes_per_token() const { return engine_->bytes; }

double Desk::memory_bytes() const {
  const Plan& p = engine_->planned;
  return static_cast<double>(p.weights + p.cache + p.scratch);
}

Desk::Answer Desk::classify(std::string_view text) {
  const Task task{.instruction =
                      "Read the financial tweet and decide what it signals for the company or market it "
                      "mentions. Reply with one word: bearish, bullish or neutral.",
                  .input = "Tweet: {text}",
                  .labels = {"bearish", "neutral", "bullish"}};
  const View& view = engine_->session.classify(task, text);
  if (!std::isfinite(view.probability)) refuse_result("classify");
  Answer answer{.prompt_tokens = view.prompt_tokens, .readers = 0};
  const auto& gate = engine_->team.gate();
  for (std::size_t k = 0; k < view.roles.size(); ++k) {
    if (view.roles[k].awake || (gate && gate->settings.of == k)) ++answer.readers;
  }
  return answer;
}

// --- opening ---------------------------------------------------------------------------------------------------------

Json open_once(const Run& run, bool from_packed) {
  const double start = now();
  const auto team = open_team(run.options.models / run.options.shape, open_options(run, from_packed), Cpu(run.pool));
  const double seconds = now() - start;
  return {{"seconds", seconds},
          {"resident", proc_bytes("/proc/self/status", "VmRSS")},
          {"resident_peak", proc_bytes("/proc/self/status", "VmHWM")}};
}

}  // namespace bench
