// The CUDA backend: ops of a step are recorded, and run as one graph where the step was seen before. Include it, and
// link finteam::cuda; nothing else of the library knows of it, and no CUDA header is needed. Not here: the kernels
// (kernels/), how a step is recorded (cuda/step.hpp), layouts (cuda/layout.hpp).
#pragma once

#include <finteam/backend/backend.hpp>
#include <finteam/backend/cuda/device_matrix.hpp>
#include <finteam/backend/cuda/device_memory.hpp>
#include <finteam/backend/cuda/device_routes.hpp>
#include <finteam/backend/cuda/step.hpp>
#include <finteam/backend/cuda/told.hpp>
#include <finteam/backend/next_token.hpp>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// The ops that `Backend` lists, on an NVIDIA GPU of compute capability 8.0 or later. One thread's; moves only. What
/// lies in its memory may outlive it.
///
/// The bits of a row are the same in any batch and any chunk, on one model of device and one version of the library
/// (law 3): rows of prompts meet weights of bf16 and of integers in products of cuBLASLt, with activations in bf16;
/// generated rows meet them as Reference does, in kernels of ours. Errors of the device are Error(system), from the op
/// that waits for it.
class Cuda {
 public:
  using Space = Device;
  using Matrix = DeviceMatrix;
  using Experts = DeviceExperts;
  using Routes = DeviceRoutes;

  /// Rows as a product reads them, in the device's memory.
  class Input {
   public:
    Input() = default;
    Input(const std::shared_ptr<detail::CudaContext>& context, index_t rows, index_t k)
        : values_(context, static_cast<std::size_t>(rows * value_bytes(k))),
          groups_(context, {rows, detail::cuda::input_groups(k)}) {}

    /// Bytes in the device's memory.
    [[nodiscard]] static std::uint64_t bytes(index_t rows, index_t k) noexcept {
      return static_cast<std::uint64_t>(rows * (value_bytes(k) + 4 * detail::cuda::input_groups(k)));
    }

   private:
    friend class Cuda;
    [[nodiscard]] static index_t value_bytes(index_t k) noexcept {
      return std::max(detail::cuda::input_bytes(detail::cuda::Format::f32, k),
                      detail::cuda::input_bytes(detail::cuda::Format::int8, k));
    }
    detail::DeviceBuffer values_;
    DeviceTensor<float, 2> groups_;
    detail::cuda::Prepare prepare_{};  ///< what it is made of
    mutable bool is_ready_ = false;    ///< whether it lies in values_
  };

  /// Device 0 and a stream of its own.
  Cuda() : Cuda(CudaOptions{}) {}
  /// Throws Error(system) where there is no such device, or its driver is missing or too old.
  explicit Cuda(const CudaOptions& options)
      : executor_(options.executor),
        context_(std::make_shared<detail::CudaContext>(options)),
        step_(context_, options.staging_bytes) {}

  /// The device's name and its compute capability, as "NVIDIA H100 80GB HBM3, 9.0": what bits depend on, but for the
  /// library's version.
  [[nodiscard]] std::string device() const {
    const auto& p = context_->properties();
    return std::string(p.name) + ", " + std::to_string(p.major) + "." + std::to_string(p.minor);
  }
  /// Its device and stream.
  [[nodiscard]] const std::shared_ptr<detail::CudaContext>& context() const noexcept { return context_; }
  /// Graphs that steps have become so far.
  [[nodiscard]] std::size_t graphs() const noexcept { return step_.graphs(); }
  /// What spreads the packing of weights.
  [[nodiscard]] ExecutorRef executor() const noexcept { return executor_; }

  /// Of one page of one head of width e.
  [[nodiscard]] static index_t page_bytes(CacheFormat format, index_t e) noexcept {
    return detail::cuda::PageLayout{static_cast<detail::cuda::CacheFormat>(format), e}.bytes();
  }

  void begin(RowKind kind) {
    kind_ = kind;
    step_.hold();
  }
  void pace() {
    if (kind_ == RowKind::prompt) step_.pace();
  }

  /// Throws Error(mismatch) unless the parts join, Error(limit_exceeded) if the size overflows.
  [[nodiscard]] DeviceMatrix matrix(std::span<const RawTensor> parts, Join join, Weights weights,
                                    std::pmr::memory_resource*) const {
    return detail::pack_matrix(context_, executor_, parts, join, format_of(weights, parts));
  }
  /// The same of a difference of few bits.
  [[nodiscard]] DeviceMatrix delta(std::span<const RawDelta> parts, std::pmr::memory_resource*) const {
    return detail::pack_matrix(context_, executor_, parts);
  }
  /// Throws Error(mismatch) unless each part is [n_i].
  [[nodiscard]] DeviceTensor<float, 1> vector(std::span<const RawTensor> parts, std::pmr::memory_resource*,
                                              float plus = 0) const {
    const Tensor<float, 1> host = detail::float_vector(parts, std::pmr::get_default_resource(), plus);
    DeviceTensor<float, 1> v(context_, {host.extent(0)});
    if (v.size() == 0) return v;
    detail::check(detail::cuda::copy_in(context_->get(), v.data(), host.data(), host.view().span().size_bytes()),
                  "a vector to be copied to the device");
    detail::check(detail::cuda::wait(context_->get()), "a vector to be copied to the device");
    return v;
  }
  /// An owning tensor of zeros.
  template <class T, std::size_t Rank>
  [[nodiscard]] DeviceTensor<T, Rank> tensor(std::array<index_t, Rank> extents, std::pmr::memory_resource*) const {
    return DeviceTensor<T, Rank>(context_, extents);
  }
  [[nodiscard]] Input input(index_t rows, index_t k, std::pmr::memory_resource*) const {
    return Input(context_, rows, k);
  }

  /// Every step has it. Throws Error(mismatch) if the weights lie on another device.
  void embed(const DeviceMatrix& w, std::span<const std::int32_t> tokens, MatrixView<float, Device> y,
             const Chosen& chosen = {}) {
    if (w.device() != context_->properties().device) {
      throw Error(Code::mismatch, "CUDA", "weights on device " + std::to_string(context_->properties().device),
                  "on device " + std::to_string(w.device()));
    }
    auto rows = detail::tell_chosen(step_, chosen, y.extent(0));
    rows.count = static_cast<std::int32_t>(tokens.size());
    step_.add(detail::cuda::Embed{w.get(), step_.tell(tokens), rows, detail::device_rows(y)});
  }
  void fill(float value, MatrixView<float, Device> y) { step_.add(detail::cuda::Fill{detail::device_rows(y), value}); }
  void copy(MatrixView<const float, Device> x, MatrixView<float, Device> y) {
    step_.add(detail::cuda::Copy{detail::device_rows(x), detail::device_rows(y)});
  }
  /// y = x, of the same extents.
  void from_host(MatrixView<const float> x, MatrixView<float, Device> y) {
    for (index_t t = 0; t < x.extent(0); ++t) {
      const auto row = y.rows(t, 1);
      const float* told = step_.tell(std::span<const float>(&x(t, 0), static_cast<std::size_t>(x.extent(1))));
      copy({told, {1, x.extent(1)}}, row);
    }
  }
  /// y = x, once everything before has run.
  void to_host(MatrixView<const float, Device> x, MatrixView<float> y) {
    step_.flush(kind_ == RowKind::generated);
    const index_t n = x.extent(1);
    const bool dense = x.stride(0) == n && y.stride(0) == n;
    for (index_t t = 0; t < x.extent(0); t += dense ? x.extent(0) : 1) {
      step_.take(&y(t, 0), x.data() + t * x.stride(0), 4 * static_cast<std::size_t>(dense ? x.size() : n));
    }
    step_.finish();
  }

  void add_bias(VectorView<const float, Device> bias, MatrixView<float, Device> y, const Chosen& chosen = {}) {
    step_.add(
        detail::cuda::AddBias{bias.data(), detail::tell_chosen(step_, chosen, y.extent(0)), detail::device_rows(y)});
  }
  void soft_cap(float cap, MatrixView<float, Device> y, const Chosen& chosen = {}) {
    step_.add(detail::cuda::SoftCap{cap, detail::tell_chosen(step_, chosen, y.extent(0)), detail::device_rows(y)});
  }

  void rms_norm(MatrixView<const float, Device> x, const RowScales<Device>& s, float eps, MatrixView<float, Device> y) {
    step_.add(
        detail::cuda::Norm{detail::device_rows(x), detail::tell_scales(step_, s), eps, 0, 1, detail::device_rows(y)});
  }
  void add_rms_norm(MatrixView<const float, Device> x, const RowScales<Device>& s, float eps,
                    MatrixView<float, Device> y) {
    step_.add(
        detail::cuda::Norm{detail::device_rows(x), detail::tell_scales(step_, s), eps, 1, 1, detail::device_rows(y)});
  }
  void norm_heads(VectorView<const float, Device> scale, float eps, TensorView<float, 3, Device> x) {
    const auto heads = static_cast<std::int32_t>(x.extent(1));
    const detail::cuda::Rows rows{x.data(), x.stride(0), static_cast<std::int32_t>(x.extent(0)),
                                  static_cast<std::int32_t>(x.extent(2))};
    step_.add(detail::cuda::Norm{rows, {scale.data(), nullptr, nullptr}, eps, 0, heads, rows});
  }

  void prepare(MatrixView<const float, Device> x, const DeviceMatrix& w, Input& input, const Chosen& chosen = {}) {
    prepare_rows(x, {}, 0, w, input, chosen);
  }
  void prepare_normed(MatrixView<const float, Device> x, const RowScales<Device>& s, float eps, const DeviceMatrix& w,
                      Input& input, const Chosen& chosen = {}) {
    prepare_rows(x, detail::tell_scales(step_, s), eps, w, input, chosen);
  }

  void matmul(const Input& input, const DeviceMatrix& w, Write write, MatrixView<float, Device> y,
              const Chosen& chosen = {}) {
    multiply(product(input, w, write, y, chosen, 0));
  }
  /// Several of these: those of one format that follow each other in one launch, unless they are of integers that
  /// whole weights are made of.
  void matmul(std::span<const Product<Cuda>> products) {
    each_.clear();
    for (const Product<Cuda>& p : products) {
      const auto next = product(*p.input, *p.w, p.write, p.y, p.chosen, p.first);
      if (next.chosen.count == 0 || next.w.n == 0) continue;
      if (!each_.empty() && each_.back().w.format != next.w.format) multiply_each();
      shares_launch(next.w.format) ? each_.push_back(next) : multiply(next);
    }
    multiply_each();
  }
  void matmul_gated(const Input& input, const DeviceMatrix& w, const Activation& activation,
                    MatrixView<const float, Device> plus, MatrixView<float, Device> y) {
    auto p = product(input, w, Write::overwrite, y, {}, 0);
    p.gated = 1;
    p.gate = curve(activation);
    if (plus.size() != 0) p.plus = detail::device_rows(plus);
    multiply(p);
  }
  void gated(MatrixView<const float, Device> gate, MatrixView<const float, Device> up, const Activation& activation,
             MatrixView<float, Device> y) {
    step_.add(detail::cuda::Gated{detail::device_rows(gate), detail::device_rows(up), curve(activation),
                                  detail::device_rows(y)});
  }

  /// The ops that `RoutesOnDevice` lists, of generated rows.
  [[nodiscard]] DeviceExperts experts(std::span<const ExpertMatrix<Cuda>> parts) const {
    return DeviceExperts(context_, parts);
  }
  [[nodiscard]] DeviceRoutes routes(index_t rows, index_t experts, RouteRule rule) const {
    return DeviceRoutes(context_, rows, experts, rule);
  }
  void route(MatrixView<const float, Device> logits, DeviceRoutes& routes, MatrixView<float, Device> weights) {
    step_.add(detail::cuda::Route{detail::device_rows(logits), detail::device_rows(weights),
                                  routes.get(logits.extent(0)), routes.renormalises() ? 1 : 0});
  }
  void matmul_gated(const Input& input, const DeviceExperts& experts, const Activation& activation,
                    const DeviceRoutes& routes, MatrixView<float, Device> y) {
    auto p = routed_product(input, experts, routes, y);
    p.product.gated = 1;
    p.product.gate = curve(activation);
    step_.add(p);
  }
  void matmul(const Input& input, const DeviceExperts& experts, const DeviceRoutes& routes,
              MatrixView<float, Device> y) {
    step_.add(routed_product(input, experts, routes, y));
  }
  void add_routed(MatrixView<const float, Device> z, const DeviceExperts& experts, const DeviceRoutes& routes,
                  MatrixView<float, Device> y) {
    step_.add(detail::cuda::AddRouted{detail::device_rows(z), experts.get(), routes.get(y.extent(0)),
                                      detail::device_rows(y)});
  }

  void angles(VectorView<const float, Device> frequency, VectorView<const float, Device> long_frequency, float factor,
              std::span<const Site> sites, MatrixView<float, Device> cosine, MatrixView<float, Device> sine) {
    step_.add(detail::cuda::Angles{frequency.data(), long_frequency.size() == 0 ? nullptr : long_frequency.data(),
                                   factor, sites_.tell(step_, sites), detail::device_rows(cosine),
                                   detail::device_rows(sine)});
  }
  void rope(MatrixView<const float, Device> cosine, MatrixView<const float, Device> sine,
            TensorView<float, 3, Device> x) {
    step_.add(detail::cuda::Rope{detail::device_rows(cosine), detail::device_rows(sine), detail::device_heads(x)});
  }

  void cache_write(std::span<const Site> sites, TensorView<const float, 3, Device> k,
                   TensorView<const float, 3, Device> v, CacheLayer<Device> cache) {
    const detail::cuda::CacheWrite write{sites_.tell(step_, sites), detail::device_heads(k), detail::device_heads(v),
                                         detail::device_cache(cache)};
    auto* const last = step_.last();
    const auto* const turn = last == nullptr ? nullptr : std::get_if<detail::cuda::Rope>(last);
    if (turn != nullptr && detail::turns(*turn, write)) {
      *last = detail::cuda::TurnAndWrite{*turn, write};
    } else {
      step_.add(write);
    }
  }
  void cache_copy(CacheLayer<Device> cache, std::int32_t from, std::int32_t to) {
    step_.add(detail::cuda::CacheCopy{detail::device_cache(cache), from, to});
  }

  void attention(std::span<const Site> sites, TensorView<const float, 3, Device> q, CacheLayer<Device> cache,
                 const AttentionRule<Device>& rule, TensorView<float, 3, Device> y) {
    const detail::cuda::Rule told{rule.scale, rule.cap, static_cast<std::int32_t>(rule.window),
                                  rule.sinks.size() == 0 ? nullptr : rule.sinks.data()};
    const auto at = sites_.tell(step_, sites);
    const auto layer = detail::device_cache(cache);
    if (kind_ == RowKind::prompt && detail::cuda::serves_runs(layer.format, layer.e)) {
      return attend_runs(sites, {at, detail::device_heads(q), layer, told, detail::device_heads(y), nullptr, 0, 0});
    }
    attend_rows(sites, {at, detail::device_heads(q), layer, told, detail::device_heads(y), nullptr, 0});
  }

  /// The ops that `ChoosesTokens` lists.
  void log_p(MatrixView<const float, Device> x, std::span<const Foretold> tokens, std::span<double> log_p) {
    run_to(detail::tell_log_p(step_, x, tokens), log_p);
  }
  void next_tokens(const NextTokens<Device>& of, std::span<NextToken> to) { run_to(tokens_.tell(step_, of), to); }

 private:
  /// Bytes of what the splits of attention give, that one command may take.
  static constexpr index_t most_part_bytes = index_t{64} << 20;

  /// The step's last command, whose results are for the host.
  template <class Command, class T>
  void run_to(const Command& command, std::span<T> to) {
    static_assert(sizeof(T) == sizeof(*command.to));
    step_.add(command);
    step_.flush(true);
    step_.take(to.data(), command.to, to.size_bytes());
    step_.finish();
  }

  /// Whether rows of this step meet such weights in products of many rows.
  [[nodiscard]] bool is_many(detail::cuda::Format f) const noexcept {
    return kind_ == RowKind::prompt && f >= detail::cuda::Format::bf16 && !detail::cuda::is_delta(f);
  }
  [[nodiscard]] static detail::cuda::Gate curve(const Activation& a) noexcept {
    return {static_cast<detail::cuda::Curve>(a.kind), a.alpha, a.limit};
  }

  void prepare_rows(MatrixView<const float, Device> x, const detail::cuda::Scales& scales, float eps,
                    const DeviceMatrix& w, Input& input, const Chosen& chosen) {
    using detail::cuda::Format;
    const Format f = w.format() == Format::bf16_wide        ? Format::f32
                     : is_many(w.format())                  ? Format::bf16
                     : detail::cuda::is_integer(w.format()) ? Format::int8
                                                            : w.format();
    input.prepare_ = {
        detail::device_rows(x), detail::tell_chosen(step_, chosen, x.extent(0)), scales, eps, f, input.values_.data(),
        input.groups_.data()};
    input.is_ready_ = false;
  }
  /// Whether a product of so many rows (an expert: at most) prepares them in its own prologue: few, and so small that
  /// blocks still share a multiprocessor.
  [[nodiscard]] static bool is_prologue(const detail::cuda::Prepare& p, detail::cuda::Format of,
                                        index_t rows) noexcept {
    constexpr index_t most_bytes = 40 * 1024;
    const bool tiles = of >= detail::cuda::Format::bf16;
    return tiles && rows <= 8 && rows * detail::cuda::prepared_bytes(p.format, p.x.n) <= most_bytes;
  }

  [[nodiscard]] detail::cuda::Multiply product(const Input& input, const DeviceMatrix& w, Write write,
                                               MatrixView<float, Device> y, const Chosen& chosen, index_t first) {
    auto rows = detail::tell_chosen(step_, chosen, y.extent(0));
    rows.count = input.prepare_.chosen.count;
    const bool prologue = kind_ == RowKind::generated && is_prologue(input.prepare_, w.format(), rows.count);
    if (!prologue && !std::exchange(input.is_ready_, true)) step_.add(input.prepare_);
    return {input.prepare_,
            w.get(),
            prologue ? nullptr : input.values_.data(),
            input.groups_.data(),
            input.prepare_.x.n,
            static_cast<std::int32_t>(first),
            rows,
            detail::device_rows(y),
            write == Write::accumulate ? 1 : 0,
            0,
            {},
            {}};
  }

  /// y: a row for each pair; of input, one for each row or for each pair.
  [[nodiscard]] detail::cuda::MultiplyRouted routed_product(const Input& input, const DeviceExperts& experts,
                                                            const DeviceRoutes& routes, MatrixView<float, Device> y) {
    const index_t rows = y.extent(0) / routes.top_k();
    const bool prologue = is_prologue(input.prepare_, experts.like().format, rows);
    if (!prologue && !std::exchange(input.is_ready_, true)) step_.add(input.prepare_);
    const detail::cuda::Multiply product{.prologue = input.prepare_,
                                         .w = experts.like(),
                                         .input = prologue ? nullptr : input.values_.data(),
                                         .groups = input.groups_.data(),
                                         .input_k = input.prepare_.x.n,
                                         .first = 0,
                                         .chosen = {nullptr, nullptr, 1, 0},
                                         .y = detail::device_rows(y),
                                         .accumulate = 0,
                                         .gated = 0,
                                         .gate = {},
                                         .plus = {}};
    return {product, experts.get(), routes.get(rows),
            static_cast<std::int32_t>(y.extent(0) / input.prepare_.chosen.count)};
  }

  void multiply(const detail::cuda::Multiply& p) {
    if (p.chosen.count == 0 || p.w.n == 0) return;
    // cuBLASLt wants rows that begin at 16 bytes; what lies beyond a padded row's end is zero.
    const bool whole = p.first == 0 && p.input_k == p.w.k;
    is_many(p.w.format) && whole ? multiply_many(p) : step_.add(p);
  }
  /// Whether a kernel multiplies by several matrices of this format.
  [[nodiscard]] bool shares_launch(detail::cuda::Format f) const noexcept {
    return (f <= detail::cuda::Format::bf16 || detail::cuda::is_delta(f)) && !is_many(f);
  }
  /// All that are waiting in each_.
  void multiply_each() {
    if (each_.empty()) return;
    const auto* const told = step_.tell(std::span<const detail::cuda::Multiply>(each_));
    detail::cuda::MultiplyEach all{told, each_.front().w.format, static_cast<std::int32_t>(each_.size()), 0, 0, 0, 0};
    for (const detail::cuda::Multiply& p : each_) {
      all.rows = std::max(all.rows, p.chosen.count);
      all.n = std::max(all.n, p.w.n);
      all.k = std::max(all.k, p.w.k);
      const index_t bytes = p.chosen.count * detail::cuda::prepared_bytes(p.prologue.format, p.input_k);
      if (p.input == nullptr) all.prologue = std::max<std::int64_t>(all.prologue, bytes);
    }
    step_.add(all);
    each_.clear();
  }

  /// Whether a product of many rows can write where its results belong.
  [[nodiscard]] static bool is_direct(const detail::cuda::Multiply& p) noexcept {
    const bool plain = p.gated == 0 && p.chosen.rows == nullptr && p.chosen.weight == nullptr && p.chosen.scale == 1;
    return plain && reinterpret_cast<std::uintptr_t>(p.y.data) % 16 == 0 && p.y.stride % 4 == 0 && p.w.n % 16 == 0;
  }
  /// The same by cuBLASLt: weights in bf16, a product, and what is left of it.
  void multiply_many(const detail::cuda::Multiply& p) {
    const detail::cuda::MatrixLayout w(p.w);
    const bool widens = p.w.format != detail::cuda::Format::bf16;
    const index_t wide_bytes = widens ? w.rows() * w.stride() * 2 : 0;
    const bool direct = is_direct(p);
    auto* const scratch = static_cast<std::byte*>(
        step_.scratch(static_cast<std::size_t>(wide_bytes + (direct ? 0 : index_t{4} * p.chosen.count * w.rows()))));
    if (widens) step_.add(detail::cuda::Widen{p.w, scratch});
    const detail::cuda::Gemm gemm{p.input,
                                  widens ? scratch : p.w.data,
                                  direct ? p.y.data : reinterpret_cast<float*>(scratch + wide_bytes),
                                  p.chosen.count,
                                  direct ? p.w.n : static_cast<std::int32_t>(w.rows()),
                                  static_cast<std::int32_t>(w.stride()),
                                  w.stride(),
                                  w.stride(),
                                  direct ? p.y.stride : w.rows(),
                                  direct ? p.accumulate : 0};
    step_.add(gemm);
    if (!direct) step_.add(detail::cuda::Finish{gemm.z, w.rows(), p});
  }

  /// Attention row by row, so many rows at once as there is room for their splits.
  void attend_rows(std::span<const Site> sites, detail::cuda::Attend p) {
    std::int32_t furthest = 0;
    for (const Site& site : sites) furthest = std::max(furthest, site.position);
    p.splits = detail::splits_for(furthest);
    const index_t row_bytes = 4 * p.q.heads * p.splits * (detail::cuda::pad(p.cache.e, 16) + 2);
    const std::int32_t rows = p.q.rows;
    const auto some = static_cast<std::int32_t>(std::clamp<index_t>(most_part_bytes / row_bytes, 1, 65535));
    p.parts = static_cast<float*>(step_.scratch(static_cast<std::size_t>(std::min(rows, some) * row_bytes)));
    for (std::int32_t first = 0; first < rows; first += some) {
      detail::cuda::Attend part = p;
      part.sites.table += first;
      part.sites.position += first;
      part.q.data += first * p.q.row_stride;
      part.y.data += first * p.y.row_stride;
      part.sites.count = part.q.rows = part.y.rows = std::min(some, rows - first);
      step_.add(part);
    }
  }

  /// Attention of prompts, run by run.
  void attend_runs(std::span<const Site> sites, detail::cuda::AttendRuns p) {
    detail::find_runs(sites, runs_);
    for (const detail::cuda::Run& run : runs_) p.longest = std::max(p.longest, run.count);
    p.runs = step_.tell(std::span<const detail::cuda::Run>(runs_));
    p.run_count = static_cast<std::int32_t>(runs_.size());
    step_.add(p);
  }

  ExecutorRef executor_;
  std::shared_ptr<detail::CudaContext> context_;
  detail::CudaStep step_;
  detail::ToldSites sites_;
  detail::ToldTokens tokens_;
  std::vector<detail::cuda::Run> runs_;
  std::vector<detail::cuda::Multiply> each_;
  RowKind kind_ = RowKind::generated;
};

static_assert(RoutesOnDevice<Cuda> && ChoosesTokens<Cuda>);

}  // namespace finteam::inline FINTEAM_ABI
