// Decoders on a GPU: see gpu_model.hpp. What changes with the library's interface changes here.
#include "gpu_model.hpp"

#include "gpu_weights.hpp"
#include "harness.hpp"
#include "topology.hpp"

#include <finteam/backend/reference.hpp>
#include <finteam/expert/decoder.hpp>

#include <unistd.h>

#include <array>
#include <deque>
#include <fstream>

namespace bench {

using namespace finteam;

namespace {

/// A checkpoint of the config's tensors that takes no disk: a file of nothing but its header, as long as if they were
/// there. RandomWeights never reads them.
Checkpoint hollow_checkpoint(const Config& c) {
  const auto folder = std::filesystem::temp_directory_path() / ("finteam-bench-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  std::vector<TensorEntry> tensors;
  std::uintmax_t bytes = 0;
  for (const TensorToWrite& t : tensors_of(c)) {
    std::uintmax_t n = 2;
    for (const index_t e : t.shape) n *= static_cast<std::uintmax_t>(e);
    tensors.push_back({t.name, "BF16", t.shape});
    bytes += n;
  }
  const std::string header = safetensors_header(tensors);
  const auto file = folder / "model.safetensors";
  write_file(file, header);
  std::filesystem::resize_file(file, header.size() + bytes);
  Checkpoint checkpoint = Checkpoint::open(folder);  // stays mapped
  std::filesystem::remove_all(folder);
  return checkpoint;
}

/// Adapters on every linear layer of the blocks, as shapes: RandomWeights has their numbers.
class Adapters {
 public:
  Adapters(const Config& c, index_t roles) {
    for (index_t role = 0; role < roles; ++role) {
      ExpertSource expert;
      for (const WeightEntry& entry : delta_table(c)) {
        DeltaSource delta;
        index_t first = 0;
        for (const auto& part : entry.parts) {
          if (part.name == llama_names.lm_head) continue;
          delta.pairs.push_back({tensor(lora_rank, entry.k), tensor(part.n, lora_rank), 1.0F, first});
          first += part.n;
        }
        expert.deltas.push_back(std::move(delta));
      }
      experts_.push_back(std::move(expert));
    }
  }
  [[nodiscard]] std::span<const ExpertSource> get() const noexcept { return experts_; }

 private:
  [[nodiscard]] RawTensor tensor(index_t n, index_t k) {
    return {nullptr, DType::bf16, shapes_.emplace_back(std::array{n, k})};
  }
  std::deque<std::array<index_t, 2>> shapes_;
  std::vector<ExpertSource> experts_;
};

/// One decoder, and what its steps need.
template <Backend B>
struct Lane {
  Decoder<B> decoder;
  KvCache<B> cache;
  StepScratch<B> scratch;
  decltype(std::declval<B&>().template tensor<float, 2>({}, nullptr)) hidden, logits;
  std::vector<std::vector<float>> routes;  // by role
  std::vector<const float*> row_routes;
  std::vector<Row> rows;

  Lane(B& b, const Checkpoint& checkpoint, const Config& c, const std::string& weights, const Adapters& adapters,
       index_t roles, index_t tokens, index_t most_rows)
      : decoder(Decoder<B>::load(b, checkpoint, c, {.weights = weights_named(weights)}, adapters.get())),
        cache(b, {.layers = c.layers,
                  .kv_heads = c.g,
                  .head_dim = c.e,
                  .sequences = std::max<index_t>(roles, 1),
                  .tokens = tokens,
                  .pages = std::max<index_t>(roles, 1) * KvCache<B>::pages_for(tokens),
                  .format = CacheFormat::bf16}),
        scratch(b, c, most_rows, std::pmr::get_default_resource(), decoder.deltas()),
        hidden(b.template tensor<float, 2>({most_rows, c.d}, std::pmr::get_default_resource())),
        logits(b.template tensor<float, 2>({std::max<index_t>(roles, 1), c.v}, std::pmr::get_default_resource())) {
    for (index_t s = 0; s < std::max<index_t>(roles, 1); ++s) {
      cache.extend(cache.open(), tokens);
      std::vector<float> route(static_cast<std::size_t>(roles), 0.0F);
      if (roles > 0) route[static_cast<std::size_t>(s)] = 1;
      routes.push_back(std::move(route));
    }
  }

  /// `count` tokens from `first` on in each sequence, sequence by sequence, then the logits of each one's last.
  void step(B& b, RowKind kind, index_t first, index_t count) {
    const Config& c = decoder.config();
    rows.clear();
    row_routes.clear();
    for (std::size_t s = 0; s < routes.size(); ++s) {
      const float* const route = routes[s].empty() ? nullptr : routes[s].data();
      for (index_t p = first; p < first + count; ++p) {
        rows.push_back({static_cast<std::int32_t>((17 * p + 31 * static_cast<index_t>(s) + 5) % c.v),
                        static_cast<std::int32_t>(p), static_cast<std::int32_t>(s), route});
      }
      row_routes.push_back(route);
    }
    const auto t = static_cast<index_t>(rows.size());
    (void)decoder.forward(b, cache, rows, scratch, hidden.view().rows(0, t), {}, {}, kind);
    if (count == 1) {
      decoder.logits(b, std::as_const(hidden).view().rows(0, t), scratch, logits.view(), row_routes);
      return;
    }
    for (std::size_t s = 0; s < routes.size(); ++s) {
      const auto row = static_cast<index_t>(s);
      decoder.logits(b, std::as_const(hidden).view().rows((row + 1) * count - 1, 1), scratch,
                     logits.view().rows(row, 1), std::span(row_routes).subspan(s, 1));
    }
  }

  [[nodiscard]] std::vector<float> read_logits(B& b) {
    std::vector<float> host(static_cast<std::size_t>(logits.size()));
    b.to_host(std::as_const(logits).view(), {host.data(), {logits.extent(0), logits.extent(1)}});
    return host;
  }
};

using Gpu = RandomWeights<Cuda>;

double matrix_bytes(const Config& c, const std::string& weights) {
  const std::array<index_t, 2> shape{c.v, c.d};
  const RawTensor raw{nullptr, DType::bf16, shape};
  const auto format = static_cast<detail::cuda::Format>(format_of(weights_named(weights), {&raw, 1}));
  return static_cast<double>(detail::cuda::MatrixLayout(format, c.v, c.d, false).bytes());
}

/// The logits after a prompt of so many tokens, and after one more.
template <Backend B>
std::vector<float> few_logits(B& b, const Config& c, const std::string& weights, index_t roles) {
  constexpr index_t prompt = 12;
  const Adapters adapters(c, roles);
  Lane<B> lane(b, hollow_checkpoint(c), c, weights, adapters, roles, prompt + 1, std::max<index_t>(roles, 1) * prompt);
  lane.step(b, RowKind::prompt, 0, prompt);
  std::vector<float> all = lane.read_logits(b);
  lane.step(b, RowKind::generated, prompt, 1);
  const std::vector<float> more = lane.read_logits(b);
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

}  // namespace

struct GpuDecoders::Engine {
  Config c;
  std::string weights;
  Gpu b;
  std::deque<Lane<Gpu>> lanes;
  NextToken token;
};

GpuDecoders::GpuDecoders(const GpuRun& run, const std::string& weights, index_t decoders, index_t roles, index_t tokens,
                         index_t rows)
    : engine_(std::make_unique<Engine>(Engine{
          run.config(), weights, Gpu(CudaOptions{.device = run.options().device, .executor = run.pool()}), {}, {}})) {
  Engine& e = *engine_;
  const double start = now();
  const Checkpoint checkpoint = hollow_checkpoint(e.c);
  for (index_t i = 0; i < decoders; ++i) {
    const Adapters adapters(e.c, roles);
    e.lanes.emplace_back(e.b, checkpoint, e.c, weights, adapters, roles, tokens, rows);
  }
  say("made " + std::to_string(decoders) + " of " + run.options().shape + " in " + weights + ", " +
      std::to_string(roles) + " adapters: " + std::to_string(now() - start) + " s");
}
GpuDecoders::~GpuDecoders() = default;

void GpuDecoders::record(RowKind kind, index_t first, index_t count) {
  for (auto& lane : engine_->lanes) lane.step(engine_->b, kind, first, count);
}

void GpuDecoders::run() {
  Engine& e = *engine_;
  std::vector<VectorView<const float, Device>> experts;
  for (const auto& lane : e.lanes) {
    for (index_t row = 0; row < lane.logits.extent(0); ++row) experts.push_back(lane.logits.view().row(row));
  }
  const std::vector<double> weight(experts.size(), 1.0 / static_cast<double>(experts.size()));
  const std::array<std::int32_t, 1> before{1};
  e.b.next_tokens({.logits = experts, .weight = weight, .absent = {}, .before = before, .sampling = {}}, {&e.token, 1});
}

std::vector<float> GpuDecoders::logits() {
  std::vector<float> all;
  for (auto& lane : engine_->lanes) {
    const auto some = lane.read_logits(engine_->b);
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

void GpuDecoders::read(index_t tokens, index_t rows) {
  for (index_t first = 0; first < tokens; first += rows) {
    record(RowKind::prompt, first, std::min(rows, tokens - first));
    run();
  }
}

double GpuDecoders::bytes(index_t context) const {
  const Engine& e = *engine_;
  const auto lanes = static_cast<double>(e.lanes.size());
  const double unread = e.c.tie_word_embeddings ? 0 : lanes * matrix_bytes(e.c, e.weights);
  const double token = 4.0 * static_cast<double>(e.c.g * e.c.e * e.c.layers);  // keys and values in bf16
  const double sequences = lanes * static_cast<double>(e.lanes.front().routes.size());
  return e.b.bytes() - unread + sequences * token * static_cast<double>(context + 1);
}

std::size_t GpuDecoders::graphs() const { return engine_->b.graphs(); }

Verdict check_widths(GpuRun& run, const std::string& weights, index_t roles) {
  return run.once(weights, roles, [&]() -> Verdict {
    Config c = run.config();
    c.layers = std::min<index_t>(c.layers, 2);
    c.v = 4096;
    Gpu gpu(CudaOptions{.device = run.options().device, .executor = run.pool()});
    RandomWeights<Reference> reference;
    const auto found = few_logits(gpu, c, weights, roles), expected = few_logits(reference, c, weights, roles);
    // Rounded activations are off by 2^-9 of themselves, or by 1/254 of their group's greatest, through two layers; a
    // prompt's rows meet integers as bf16 numbers, the reference's do not.
    return {.against = std::to_string(c.layers) + " layers of these widths on the reference backend, root mean square",
            .error = mean_error(found, expected),
            .allowed = weights == "bf16" ? 0.02 : 0.06};
  });
}

}  // namespace bench
