// A decoder language model: rows of tokens to hidden states to logits, written once over the Backend concept.
// A step is a ragged batch of rows (law 2): prefill, decode, many requests and the scoring of labels are the same call.
#pragma once

#include <finteam/backend/fp_environment.hpp>
#include <finteam/core/interrupt.hpp>
#include <finteam/expert/block.hpp>
#include <finteam/expert/experts.hpp>
#include <finteam/layer/rope.hpp>

#include <algorithm>
#include <optional>
#include <span>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// One row of a step: a token at a position of a sequence of the cache, and what the decoder's experts count there.
struct Row {
  std::int32_t token = 0;
  std::int32_t position = 0;
  std::int32_t sequence = 0;
  const float* route = nullptr;  ///< [experts]: the weight of each; null: of none, the row sees the base alone
};

/// Working memory for steps of up to `rows` rows of one decoder; made once, nothing is allocated afterwards.
template <Backend B>
class StepScratch {
 public:
  StepScratch(B& b, const Config& c, index_t rows, std::pmr::memory_resource* memory = std::pmr::get_default_resource(),
              const DeltaShape& deltas = {})
      : rows_(rows),
        x_(b.template tensor<float, 2>({rows, c.d}, memory)),
        block_{.input = b.input(rows, std::max({c.d, c.f, c.h * c.e}), memory),
               .attention = {.qkv = b.template tensor<float, 3>({rows, c.h + 2 * c.g, c.e}, memory),
                             .y = b.template tensor<float, 3>({rows, c.h, c.e}, memory),
                             .cosine = b.template tensor<float, 3>({ropes(c), rows, c.rope.width(c.e) / 2}, memory),
                             .sine = b.template tensor<float, 3>({ropes(c), rows, c.rope.width(c.e) / 2}, memory)},
               .feed_forward = {.y = b.template tensor<float, 2>({rows, c.f}, memory),
                                .up = b.template tensor<float, 2>({c.routes_linears() ? rows : 0, c.f}, memory),
                                .plus = b.template tensor<float, 2>({has_plus(c, deltas) ? rows : 0, 2 * c.f}, memory)},
               .delta = {.experts = std::vector<Chosen>(static_cast<std::size_t>(deltas.experts)),
                         .row_experts = {},
                         .inputs = {},
                         .products = {},
                         .inner = b.template tensor<float, 2>({rows, deltas.rank}, memory)},
               .router = {.n = b.template tensor<float, 2>({routed_rows(c, rows), c.d}, memory),
                          .logits = b.template tensor<float, 2>({routed_rows(c, rows), c.experts}, memory),
                          .read_logits = host_room<B>(routed_rows(c, rows), c.experts, memory),
                          .scores = std::vector<double>(static_cast<std::size_t>(c.experts)),
                          .chosen = chosen_rows(c.is_routed() ? c.experts : 0, rows),
                          .route = route_scratch<B>(b, c, rows, memory)},
               .own = b.template tensor<float, 2>({has_norms_behind(c) ? rows : 0, c.d}, memory)},
        routing_({rows, c.is_routed() ? c.layers : 0, c.experts}, memory),
        routed_(chosen_rows(deltas.experts, rows)),
        own_norms_(deltas.own_norms) {
    const auto most = static_cast<std::size_t>(rows);
    tokens_.reserve(most);
    sites_.reserve(most);
    base_rows_.reserve(most);
    for (index_t k = 0; k < deltas.experts; ++k) {
      block_.delta.inputs.push_back(b.input(k == 0 ? rows : few_rows, delta_inputs(c, deltas), memory));
    }
    block_.delta.products.reserve(static_cast<std::size_t>(deltas.experts) * DeltaShape::most_products);
    block_.delta.row_experts.reserve(own_norms_ ? most : 0);
  }

  /// Bytes that are taken from `memory` for that.
  [[nodiscard]] static std::uint64_t bytes(const Config& c, index_t rows, const DeltaShape& deltas = {}) {
    const index_t heads = c.h + 2 * c.g + c.h, plus = deltas.rank + (has_plus(c, deltas) ? 2 * c.f : 0);
    const index_t angles = 2 * ropes(c) * (c.rope.width(c.e) / 2), own = has_norms_behind(c) ? c.d : 0;
    const index_t routed = (c.is_routed() ? c.d + (c.layers + 1) * c.experts : 0) + (c.routes_linears() ? c.f : 0);
    return B::Input::bytes(rows, std::max({c.d, c.f, c.h * c.e})) +
           (deltas.experts == 0 ? 0
                                : B::Input::bytes(rows + (deltas.experts - 1) * few_rows, delta_inputs(c, deltas))) +
           4 * static_cast<std::uint64_t>(rows * (c.d + heads * c.e + angles + c.f + plus + own + routed));
  }

  /// Most rows of one step.
  [[nodiscard]] index_t rows() const noexcept { return rows_; }

  /// What the routers of a merged checkpoint made of the last step's rows: the weight of each expert, 0 where it was
  /// not chosen; the mean over a block's routers, where linear layers have them. [rows, layers, experts]; no layers
  /// without routers. Waits for the step, where a device chose: once, and throws what B::to_host does.
  [[nodiscard]] TensorView<const float, 3> routing(B& b) {
    if constexpr (RoutesOnDevice<B>) {
      const auto flat = [&](auto x) {
        return MatrixView<typename decltype(x)::value_type, typename decltype(x)::space>(x.data(),
                                                                                         {1, on_device_ * x.stride(0)});
      };
      if (on_device_ != 0) b.to_host(flat(block_.router.route.all_weights.view()), flat(routing_.view()));
      on_device_ = 0;
    }
    return routing_.view();
  }

 private:
  template <Backend>
  friend class Decoder;

  [[nodiscard]] static std::vector<ChosenRows> chosen_rows(index_t experts, index_t rows) {
    std::vector<ChosenRows> all;
    for (index_t k = 0; k < experts; ++k) all.emplace_back(rows);
    return all;
  }
  [[nodiscard]] static index_t ropes(const Config& c) noexcept { return c.window_rope ? 2 : 1; }
  [[nodiscard]] static bool has_norms_behind(const Config& c) noexcept { return c.norms != NormPlace::before; }
  /// Whether something is added to gate and up.
  [[nodiscard]] static bool has_plus(const Config& c, const DeltaShape& deltas) noexcept {
    return c.mlp_bias || deltas.before_swiglu;
  }
  [[nodiscard]] static index_t routed_rows(const Config& c, index_t rows) noexcept { return c.is_routed() ? rows : 0; }

  [[nodiscard]] static index_t delta_inputs(const Config& c, const DeltaShape& deltas) noexcept {
    return std::max({c.d, c.f, c.h * c.e, deltas.rank});
  }

  /// Says who chooses the experts of the next t rows behind routers.
  void set_chooser(Chooser chooser, index_t t) noexcept {
    block_.router.chooser = chooser;
    on_device_ = chooser == Chooser::device ? t : 0;
  }
  /// Where the routers of layer l put the weights of t rows.
  void set_layer(index_t l, index_t t) noexcept {
    const auto of_layer = [&](auto x) {
      using OfLayer = MatrixView<typename decltype(x)::value_type, typename decltype(x)::space>;
      return OfLayer(x.data() + l * x.stride(1), {t, x.extent(2)}, {x.stride(0), 1});
    };
    if constexpr (RoutesOnDevice<B>) block_.router.route.weights = of_layer(block_.router.route.all_weights.view());
    block_.router.weights = of_layer(routing_.view());
    if (block_.router.chooser == Chooser::cpu) detail::fill(0.0F, block_.router.weights);
  }

  /// Sorts t rows by expert: route(i) is row i's.
  template <class Route>
  void choose(std::size_t t, Route&& route) {
    for (ChosenRows& expert : routed_) expert.clear();
    block_.delta.together = true;
    for (std::size_t i = 0; i < t; ++i) {
      int experts = 0;
      for (std::size_t k = 0; k < routed_.size() && route(i) != nullptr; ++k) {
        if (route(i)[k] == 0) continue;
        routed_[k].add(static_cast<std::int32_t>(i), route(i)[k]);
        ++experts;
      }
      if (experts > 1) block_.delta.together = false;
    }
    for (std::size_t k = 0; k < routed_.size(); ++k) {
      block_.delta.experts[k] = routed_[k].chosen();
      if (routed_[k].rows().size() > static_cast<std::size_t>(few_rows)) block_.delta.together = false;
    }
    if (!own_norms_) return;
    block_.delta.row_experts.assign(t, -1);
    for (std::size_t k = 0; k < routed_.size(); ++k) {
      for (const std::int32_t i : routed_[k].rows()) {
        block_.delta.row_experts[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(k);
      }
    }
  }

  index_t rows_;
  decltype(std::declval<B&>().template tensor<float, 2>({}, nullptr)) x_;  // the residual stream, [rows, d]
  BlockScratch<B> block_;
  std::vector<std::int32_t> tokens_;
  std::vector<Site> sites_;
  Tensor<float, 3> routing_;
  index_t on_device_ = 0;           // rows of the last step whose weights are not in routing_ yet
  std::vector<ChosenRows> routed_;  // by expert on a shared base
  bool own_norms_;
  std::vector<std::int32_t> base_rows_;
};

/// Where a step's states are also wanted: after so many blocks, before any final norm (transformers'
/// hidden_states[layer], but for the last). states [t, d], overwritten.
template <class Space>
struct Tap {
  index_t layer = 0;
  MatrixView<float, Space> states;
};

/// Immutable after loading; shared by threads, each with its own cache and scratch.
template <Backend B>
class Decoder {
 public:
  /// Throws Error for a tensor that is missing, misshapen, or that `config` has no place for.
  /// experts: on this base, in the order of a row's route.
  [[nodiscard]] static Decoder load(B& backend, const Checkpoint& checkpoint, const Config& config,
                                    const OpenOptions& options = {}, std::span<const ExpertSource> experts = {}) {
    Decoder self(config, load_weights(backend, checkpoint, config, options), DeltaShape::of(experts, config));
    self.ropes_.push_back(load_rope(backend, make_rope(config.rope, config.e), options.memory));
    if (config.window_rope) {
      self.ropes_.push_back(load_rope(backend, make_rope(*config.window_rope, config.e), options.memory));
    }
    load_experts(backend, experts, config, options, self.w_);
    if constexpr (RoutesOnDevice<B>) {
      self.routes_on_device_ = config.routes_feed_forward();
      for (BlockWeights<B>& block : self.w_.blocks) {
        if (self.routes_on_device_) self.routes_on_device_ = find_tables<B>(backend, block.feed_forward);
      }
    }
    return self;
  }

  [[nodiscard]] const Config& config() const noexcept { return config_; }
  /// What it has of experts.
  [[nodiscard]] const DeltaShape& deltas() const noexcept { return deltas_; }

  /// Runs one step of t = rows.size() ≤ scratch.rows() rows: hidden[i,:] = norm(blocks(embed_tokens[rows[i].token])),
  /// hidden [t, d], overwritten. The cache must have been extended over every row's position, and earlier positions
  /// written by this or an earlier step; tokens must be in the vocabulary (the text room's ids are).
  /// Returns the interrupt's code if it was pending before some layer: hidden is then unfinished, and so are the new
  /// positions of the cache. kind: of all its rows.
  [[nodiscard]] std::optional<Code> forward(B& b, KvCache<B>& cache, std::span<const Row> rows, StepScratch<B>& s,
                                            MatrixView<float, typename B::Space> hidden,
                                            const Interrupt& interrupt = {},
                                            const std::optional<Tap<typename B::Space>>& tap = {},
                                            RowKind kind = RowKind::generated) const {
    const FpEnvironment environment;
    b.begin(kind);
    const index_t t = static_cast<index_t>(rows.size());
    const auto x = s.x_.view().rows(0, t);
    s.tokens_.clear();
    s.sites_.clear();
    for (const Row& row : rows) {
      s.tokens_.push_back(row.token);
      s.sites_.push_back(cache.site(row.sequence, row.position));
    }
    auto& a = s.block_.attention;
    for (std::size_t i = 0; i < ropes_.size(); ++i) {
      const auto of = static_cast<index_t>(i);
      rope_angles<B>(b, ropes_[i], s.sites_, a.cosine.view().row(of).rows(0, t), a.sine.view().row(of).rows(0, t));
    }
    s.choose(rows.size(), [&](std::size_t i) { return rows[i].route; });
    s.set_chooser(routes_on_device_ && kind == RowKind::generated ? Chooser::device : Chooser::cpu, t);
    embed(b, rows, s, x);
    const auto tapped = [&](std::size_t l) {
      if (tap && tap->layer == static_cast<index_t>(l)) b.copy(x, tap->states);
    };
    tapped(0);
    for (std::size_t l = 0; l < w_.blocks.size(); ++l) {
      b.pace();
      if (const auto code = interrupt.pending()) return code;
      if (config_.is_routed()) s.set_layer(static_cast<index_t>(l), t);
      block<B>(b, w_.blocks[l], eps_, s.sites_, cache.layer(static_cast<index_t>(l)), s.block_, x);
      tapped(l + 1);
    }
    b.rms_norm(x, w_.norm.of(s.block_.delta.row_experts), eps_, hidden);
    return std::nullopt;
  }

  /// y[t,:] = embed_tokens[rows[t].token,:] as the first block sees it, by the row's route. t = rows.size() ≤ s.rows(),
  /// y [t, d], overwritten.
  void embeddings(B& b, std::span<const Row> rows, StepScratch<B>& s, MatrixView<float, typename B::Space> y) const {
    b.begin(RowKind::generated);  // all are looked up alike
    s.tokens_.clear();
    for (const Row& row : rows) s.tokens_.push_back(row.token);
    s.choose(rows.size(), [&](std::size_t i) { return rows[i].route; });
    embed(b, rows, s, y);
  }

  /// logits[t,:] = lm_head · hidden[t,:]. hidden [t, d], t ≤ s.rows(), logits [t, v], overwritten. routes: of each row,
  /// as it was in its step; empty: of none. only: the rows to be computed, the others' routes null; empty: all. Rows
  /// are computed as generated ones, whatever they were in their step.
  void logits(B& b, MatrixView<const float, typename B::Space> hidden, StepScratch<B>& s,
              MatrixView<float, typename B::Space> logits, std::span<const float* const> routes = {},
              std::span<const std::int32_t> only = {}) const {
    b.begin(RowKind::generated);
    s.choose(routes.size(), [&](std::size_t i) { return routes[i]; });
    const auto head = [&](const typename B::Matrix& w, const Chosen& chosen) {
      b.prepare(hidden, w, s.block_.input, chosen);
      b.matmul(s.block_.input, w, Write::overwrite, logits, chosen);
    };
    const bool own_heads =
        std::any_of(w_.own.begin(), w_.own.end(), [](const auto& own) { return !own.lm_head.empty(); });
    if (!own_heads) {
      head(w_.lm_head(), {.rows = only});
    } else {
      heads(routes, only, s, head, hidden.extent(0));
    }
    add_deltas<B>(
        b, w_.lm_head_deltas, s.block_.delta,
        [&](const auto& a, auto& in, const Chosen& chosen) { b.prepare(hidden, a, in, chosen); }, logits);
    if (config_.logit_cap > 0) b.soft_cap(static_cast<float>(config_.logit_cap), logits, {.rows = only});
  }

 private:
  Decoder(const Config& config, DecoderWeights<B> weights, const DeltaShape& deltas)
      : config_(config), deltas_(deltas), eps_(static_cast<float>(config.rms_norm_eps)), w_(std::move(weights)) {}

  /// head(matrix, rows) for the rows of each expert with a head of its own, and for the others with the base's.
  template <class Head>
  void heads(std::span<const float* const> routes, std::span<const std::int32_t> only, StepScratch<B>& s, Head&& head,
             index_t t) const {
    s.base_rows_.clear();
    if (only.empty()) {
      for (index_t i = 0; i < t; ++i) s.base_rows_.push_back(static_cast<std::int32_t>(i));
    } else {
      s.base_rows_.assign(only.begin(), only.end());
    }
    for (std::size_t k = 0; k < w_.own.size(); ++k) {
      if (w_.own[k].lm_head.empty() || s.routed_[k].rows().empty()) continue;
      head(w_.own[k].lm_head.front(), {.rows = s.routed_[k].rows()});
      std::erase_if(s.base_rows_, [&](std::int32_t i) {
        const float* route = routes.empty() ? nullptr : routes[static_cast<std::size_t>(i)];
        return route != nullptr && route[k] != 0;
      });
    }
    if (!s.base_rows_.empty()) head(w_.lm_head(), {.rows = s.base_rows_});
  }

  /// x[t,:] = embedding_scale · embed_tokens[token,:], the base's or the row's expert's own.
  void embed(B& b, std::span<const Row> rows, StepScratch<B>& s, MatrixView<float, typename B::Space> x) const {
    const float scale = static_cast<float>(config_.embedding_scale);
    b.embed(w_.embed_tokens, s.tokens_, x, {.scale = scale});
    for (std::size_t k = 0; k < w_.own.size(); ++k) {
      const std::span<const std::int32_t> of_expert = s.routed_[k].rows();
      if (w_.own[k].embed_tokens.empty() || of_expert.empty()) continue;
      s.tokens_.clear();
      for (const std::int32_t i : of_expert) s.tokens_.push_back(rows[static_cast<std::size_t>(i)].token);
      b.embed(w_.own[k].embed_tokens.front(), s.tokens_, x, {.rows = of_expert, .scale = scale});
    }
  }

  Config config_;
  DeltaShape deltas_;
  float eps_;
  std::vector<RopeTensor<B>> ropes_;  // of all blocks, or of those without a window and of those with one
  DecoderWeights<B> w_;
  bool routes_on_device_ = false;  // a device can choose among the experts of every layer
};

}  // namespace finteam::inline FINTEAM_ABI
