// The CUDA backend as one whose tensors are in host memory: each op copies what it reads to the device, and what it
// wrote back, gaps between rows included. So the tests of host backends are its tests, too.
#pragma once

#include <finteam/backend/cuda.hpp>

#include <algorithm>
#include <cstring>
#include <functional>
#include <list>
#include <vector>

namespace on_host {

using finteam::index_t;
using Device = finteam::Device;
using Host = finteam::Host;
namespace layouts = finteam::cuda_v0_1;

/// Pages of a cache in host memory as pages in a device's, and back, byte by byte.
class Pages {
 public:
  explicit Pages(const finteam::CacheLayer<Host>& cache)
      : cache_(cache), layout_{static_cast<layouts::CacheFormat>(cache.format), cache.e} {}

  [[nodiscard]] std::vector<float> to_device() const {
    std::vector<std::byte> bytes(static_cast<std::size_t>(count() * layout_.bytes()));
    each([&](std::byte* page, const finteam::KvPage& host, index_t slot, index_t i) { put(page, host, slot, i); },
         bytes.data());
    std::vector<float> floats(bytes.size() / 4);
    std::memcpy(floats.data(), bytes.data(), bytes.size());
    return floats;
  }
  void from_device(std::vector<float>& floats) const {
    each([&](std::byte* page, const finteam::KvPage& host, index_t slot, index_t i) { get(page, host, slot, i); },
         reinterpret_cast<std::byte*>(floats.data()));
  }
  [[nodiscard]] index_t count() const { return cache_.heads.extent(0) * cache_.heads.extent(1); }
  [[nodiscard]] index_t bytes() const { return layout_.bytes(); }

 private:
  template <class F>
  void each(F&& f, std::byte* bytes) const {
    for (index_t head = 0; head < cache_.heads.extent(0); ++head) {
      for (index_t p = 0; p < cache_.heads.extent(1); ++p, bytes += layout_.bytes()) {
        for (index_t slot = 0; slot < finteam::page_tokens; ++slot) {
          for (index_t i = 0; i < layout_.e; ++i) f(bytes, cache_.page(p, head), slot, i);
        }
      }
    }
  }
  /// Where KvPage has an int8 key's number and its scale, and a value's number.
  [[nodiscard]] std::byte* key_number(const finteam::KvPage& page, index_t slot, index_t i) const {
    return key_block(page, slot, i) + i / 32 % 2 * 512 + i % 32 / 4 * 64 + slot % 16 * 4 + i % 4;
  }
  [[nodiscard]] std::byte* key_scale(const finteam::KvPage& page, index_t slot, index_t i) const {
    return key_block(page, slot, i) + 1024 + (i / 32 % 2 * 16 + slot % 16) * 2;
  }
  [[nodiscard]] std::byte* key_block(const finteam::KvPage& page, index_t slot, index_t i) const {
    return page.keys() + slot / 16 * finteam::panel_bytes(finteam::Format::int8, layout_.e) +
           i / 64 * finteam::block_bytes(finteam::Format::int8);
  }
  [[nodiscard]] std::byte* value_number(const finteam::KvPage& page, index_t slot, index_t i) const {
    return page.values() + i / 32 * 1024 + (slot % 16 / 2 * 32 + i % 32) * 4 + slot / 16 * 2 + slot % 2;
  }
  [[nodiscard]] std::byte* float_key(const finteam::KvPage& page, index_t slot, index_t i) const {
    const bool wide = cache_.format == finteam::CacheFormat::f32;
    return page.keys() + (wide ? (i * 32 + slot) * 4 : ((i / 2 * 32 + slot) * 2 + i % 2) * 2);
  }
  [[nodiscard]] std::byte* float_value(const finteam::KvPage& page, index_t slot, index_t i) const {
    const bool wide = cache_.format == finteam::CacheFormat::f32;
    std::byte* panel = page.values() + i / 32 * finteam::KvPage::value_panel_bytes(cache_.format);
    return panel + (wide ? (slot * 32 + i % 32) * 4 : ((slot / 2 * 32 + i % 32) * 2 + slot % 2) * 2);
  }

  void put(std::byte* to, const finteam::KvPage& from, index_t slot, index_t i) const {
    const auto size = static_cast<std::size_t>(layout_.element_bytes());
    if (cache_.format != finteam::CacheFormat::int8) {
      std::memcpy(to + layout_.key(slot, i), float_key(from, slot, i), size);
      std::memcpy(to + layout_.value(slot, i), float_value(from, slot, i), size);
      return;
    }
    to[layout_.key(slot, i)] = *key_number(from, slot, i) ^ std::byte{128};
    to[layout_.value(slot, i)] = *value_number(from, slot, i);
    finteam::bf16 scale;
    std::memcpy(&scale, key_scale(from, slot, i), 2);
    const float wide = finteam::to_float(scale);
    std::memcpy(to + layout_.key_scale(slot, i), &wide, 4);
    std::memcpy(to + layout_.value_scale(slot), from.scales() + slot, 4);
  }
  void get(const std::byte* from, const finteam::KvPage& to, index_t slot, index_t i) const {
    const auto size = static_cast<std::size_t>(layout_.element_bytes());
    if (cache_.format != finteam::CacheFormat::int8) {
      std::memcpy(float_key(to, slot, i), from + layout_.key(slot, i), size);
      std::memcpy(float_value(to, slot, i), from + layout_.value(slot, i), size);
      return;
    }
    *key_number(to, slot, i) = from[layout_.key(slot, i)] ^ std::byte{128};
    *value_number(to, slot, i) = from[layout_.value(slot, i)];
    float wide;
    std::memcpy(&wide, from + layout_.key_scale(slot, i), 4);
    const finteam::bf16 scale = finteam::to_bf16(wide);
    std::memcpy(key_scale(to, slot, i), &scale, 2);
    std::memcpy(to.scales() + slot, from + layout_.value_scale(slot), 4);
  }

  finteam::CacheLayer<Host> cache_;
  layouts::PageLayout layout_;
};

/// The backend.
class Cuda {
 public:
  using Space = Host;
  using Matrix = finteam::DeviceMatrix;
  using Input = finteam::Cuda::Input;

  /// What rows of ops are, from now on.
  void begin(finteam::RowKind kind) { kind_ = kind; }
  void pace() {}
  [[nodiscard]] finteam::Cuda& device() { return b_; }

  [[nodiscard]] static index_t page_bytes(finteam::CacheFormat format, index_t e) {
    return finteam::KvPage::bytes(format, e);
  }
  [[nodiscard]] Matrix matrix(std::span<const finteam::RawTensor> parts, finteam::Join join, finteam::Weights weights,
                              std::pmr::memory_resource* memory) {
    return b_.matrix(parts, join, weights, memory);
  }
  [[nodiscard]] Matrix delta(std::span<const finteam::RawDelta> parts, std::pmr::memory_resource* memory) {
    return b_.delta(parts, memory);
  }
  [[nodiscard]] finteam::Tensor<float, 1> vector(std::span<const finteam::RawTensor> parts,
                                                 std::pmr::memory_resource* memory, float plus = 0) {
    auto v = b_.vector(parts, memory, plus);
    finteam::Tensor<float, 1> host({v.size()});
    b_.to_host({v.data(), {1, v.size()}}, {host.data(), {1, v.size()}});
    return host;
  }
  template <class T, std::size_t Rank>
  [[nodiscard]] finteam::Tensor<T, Rank> tensor(std::array<index_t, Rank> extents, std::pmr::memory_resource* memory) {
    return finteam::Tensor<T, Rank>(extents, memory);
  }
  [[nodiscard]] Input input(index_t rows, index_t k, std::pmr::memory_resource* memory) {
    return b_.input(rows, k, memory);
  }

  void embed(const Matrix& w, std::span<const std::int32_t> tokens, finteam::MatrixView<float> y,
             const finteam::Chosen& chosen = {}) {
    op([&] { b_.embed(w, tokens, out(y), chosen); });
  }
  void fill(float value, finteam::MatrixView<float> y) {
    op([&] { b_.fill(value, out(y)); });
  }
  void copy(finteam::MatrixView<const float> x, finteam::MatrixView<float> y) {
    op([&] { b_.copy(in(x), out(y)); });
  }
  void from_host(finteam::MatrixView<const float> x, finteam::MatrixView<float> y) {
    op([&] { b_.from_host(x, out(y)); });
  }
  void to_host(finteam::MatrixView<const float> x, finteam::MatrixView<float> y) { finteam::detail::copy(x, y); }
  void add_bias(finteam::VectorView<const float> bias, finteam::MatrixView<float> y,
                const finteam::Chosen& chosen = {}) {
    op([&] { b_.add_bias(in(bias), out(y), chosen); });
  }
  void soft_cap(float cap, finteam::MatrixView<float> y, const finteam::Chosen& chosen = {}) {
    op([&] { b_.soft_cap(cap, out(y), chosen); });
  }
  void rms_norm(finteam::MatrixView<const float> x, const finteam::RowScales<Host>& s, float eps,
                finteam::MatrixView<float> y) {
    op([&] { b_.rms_norm(in(x), scales(s), eps, out(y)); });
  }
  void add_rms_norm(finteam::MatrixView<const float> x, const finteam::RowScales<Host>& s, float eps,
                    finteam::MatrixView<float> y) {
    op([&] { b_.add_rms_norm(in(x), scales(s), eps, out(y)); });
  }
  void norm_heads(finteam::VectorView<const float> scale, float eps, finteam::TensorView<float, 3> x) {
    op([&] { b_.norm_heads(in(scale), eps, out(x)); });
  }
  void prepare(finteam::MatrixView<const float> x, const Matrix& w, Input& input, const finteam::Chosen& chosen = {}) {
    op([&] { b_.prepare(in(x), w, input, chosen); });
  }
  void prepare_normed(finteam::MatrixView<const float> x, const finteam::RowScales<Host>& s, float eps, const Matrix& w,
                      Input& input, const finteam::Chosen& chosen = {}) {
    op([&] { b_.prepare_normed(in(x), scales(s), eps, w, input, chosen); });
  }
  void matmul(const Input& input, const Matrix& w, finteam::Write write, finteam::MatrixView<float> y,
              const finteam::Chosen& chosen = {}) {
    op([&] { b_.matmul(input, w, write, out(y), chosen); });
  }
  void matmul(std::span<const finteam::Product<Cuda>> products) {
    op([&] {
      std::vector<finteam::Product<finteam::Cuda>> on_device;
      for (const auto& p : products) {
        on_device.push_back({p.input, p.w, p.write, out(p.y), p.chosen, p.first});
      }
      b_.matmul(on_device);
    });
  }
  void matmul_gated(const Input& input, const Matrix& w, const finteam::Activation& activation,
                    finteam::MatrixView<const float> plus, finteam::MatrixView<float> y) {
    op([&] { b_.matmul_gated(input, w, activation, in(plus), out(y)); });
  }
  void gated(finteam::MatrixView<const float> gate, finteam::MatrixView<const float> up,
             const finteam::Activation& activation, finteam::MatrixView<float> y) {
    op([&] {
      const auto to = out(y);
      b_.gated(in(gate), in(up), activation, to);
    });
  }
  void angles(finteam::VectorView<const float> frequency, finteam::VectorView<const float> long_frequency, float factor,
              std::span<const finteam::Site> sites, finteam::MatrixView<float> cosine,
              finteam::MatrixView<float> sine) {
    op([&] { b_.angles(in(frequency), in(long_frequency), factor, sites, out(cosine), out(sine)); });
  }
  void rope(finteam::MatrixView<const float> cosine, finteam::MatrixView<const float> sine,
            finteam::TensorView<float, 3> x) {
    op([&] { b_.rope(in(cosine), in(sine), out(x)); });
  }
  void cache_write(std::span<const finteam::Site> sites, finteam::TensorView<const float, 3> k,
                   finteam::TensorView<const float, 3> v, finteam::CacheLayer<Host> cache) {
    with_cache(cache, true, [&](auto layer) { b_.cache_write(sites, in(k), in(v), layer); });
  }
  void cache_copy(finteam::CacheLayer<Host> cache, std::int32_t from, std::int32_t to) {
    with_cache(cache, true, [&](auto layer) { b_.cache_copy(layer, from, to); });
  }
  void attention(std::span<const finteam::Site> sites, finteam::TensorView<const float, 3> q,
                 finteam::CacheLayer<Host> cache, const finteam::AttentionRule<>& rule,
                 finteam::TensorView<float, 3> y) {
    with_cache(cache, false, [&](auto layer) {
      b_.attention(sites, in(q), layer, {rule.scale, rule.window, rule.cap, in(rule.sinks)}, out(y));
    });
  }

 private:
  /// Host memory, and its place in the device's.
  struct Mirror {
    const float* host;
    index_t n;
    finteam::DeviceTensor<float, 2> device;
    float* back;  ///< the same memory if it is written
  };

  template <class F>
  void op(F&& f) {
    kept_.splice(kept_.end(), mirrors_);  // a product may read what its input was prepared from
    b_.begin(kind_);
    f();
    for (Mirror& m : mirrors_) {
      if (m.back != nullptr) b_.to_host(m.device.view(), {m.back, {1, m.n}});
    }
    wait();
  }
  void wait() {
    auto one = b_.tensor<float, 2>({1, 1}, nullptr);
    float x;
    b_.to_host(one.view(), {&x, {1, 1}});
  }
  template <class F>
  void with_cache(const finteam::CacheLayer<Host>& cache, bool writes, F&& f) {
    const Pages pages(cache);
    std::vector<float> bytes = pages.to_device();
    const auto n = static_cast<index_t>(bytes.size());
    auto memory = b_.tensor<float, 2>({1, n}, nullptr);
    give(bytes.data(), n, memory.data());
    const finteam::TensorView<std::byte, 3, Device> heads(
        reinterpret_cast<std::byte*>(memory.data()), {cache.heads.extent(0), cache.heads.extent(1), pages.bytes()});
    op([&] { f(finteam::CacheLayer<Device>{heads, cache.format, cache.e}); });
    if (!writes) return;
    b_.to_host(memory.view(), {bytes.data(), {1, n}});
    pages.from_device(bytes);
  }

  void give(const float* host, index_t n, float* device) {
    finteam::detail::check(layouts::copy_in(b_.context()->get(), device, host, static_cast<std::size_t>(4 * n)),
                           "a copy");
  }
  template <class T, std::size_t Rank>
  [[nodiscard]] static index_t reach(finteam::TensorView<T, Rank> x) {
    index_t last = 1;
    for (std::size_t r = 0; r < Rank; ++r) {
      if (x.extent(r) == 0) return 0;
      last += (x.extent(r) - 1) * x.stride(r);
    }
    return last;
  }
  /// The device's address of host memory.
  [[nodiscard]] float* mirror(const float* host, index_t n, bool written) {
    if (n == 0) return nullptr;
    for (Mirror& m : mirrors_) {
      if (host < m.host || host + n > m.host + m.n) continue;
      if (written) m.back = const_cast<float*>(m.host);
      return m.device.data() + (host - m.host);
    }
    mirrors_.push_back({host, n, b_.tensor<float, 2>({1, n}, nullptr), written ? const_cast<float*>(host) : nullptr});
    give(host, n, mirrors_.back().device.data());
    return mirrors_.back().device.data();
  }
  template <class T, std::size_t Rank>
  [[nodiscard]] finteam::TensorView<const float, Rank, Device> in(finteam::TensorView<T, Rank> x) {
    return {mirror(x.data(), reach(x), false), x.extents(), x.strides()};
  }
  template <std::size_t Rank>
  [[nodiscard]] finteam::TensorView<float, Rank, Device> out(finteam::TensorView<float, Rank> y) {
    return {mirror(y.data(), reach(y), true), y.extents(), y.strides()};
  }
  [[nodiscard]] finteam::RowScales<Device> scales(const finteam::RowScales<Host>& s) {
    return {in(s.shared), in(s.own), s.expert};
  }

  finteam::Cuda b_;
  finteam::RowKind kind_ = finteam::RowKind::generated;
  std::list<Mirror> mirrors_, kept_;
};

static_assert(finteam::Backend<Cuda>);

}  // namespace on_host
