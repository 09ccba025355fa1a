// Random weights for backends, made as they are asked for: no file of gigabytes, and of matrices of one shape only the
// first is packed on the host; the others are copies of it within the device's memory. Not here: decoders of them.
#pragma once

#include "gpu_device.hpp"
#include "random_checkpoint.hpp"

#include <finteam/backend/cuda.hpp>

#include <array>
#include <cstdint>
#include <memory_resource>
#include <span>
#include <type_traits>
#include <vector>

namespace bench {

/// Tensors of the shapes of others, whose numbers their shapes and a seed decide. bf16.
class RandomTensors {
 public:
  RandomTensors(std::span<const finteam::RawTensor> shapes, std::uint64_t seed, float around, finteam::ExecutorRef on) {
    const RandomValues values(around);
    for (std::size_t part = 0; part < shapes.size(); ++part) {
      const finteam::RawTensor& raw = shapes[part];
      auto& to = numbers_.emplace_back(static_cast<std::size_t>(raw.size() + 3) / 4 * 4);
      constexpr index_t some = 1 << 20;
      finteam::detail::for_chunks(on, (raw.size() + some - 1) / some, 1, [&](index_t first, index_t last) {
        const auto begin = static_cast<std::size_t>(first * some);
        const auto end = std::min(static_cast<std::size_t>(last * some), to.size());
        values.fill(stream(seed, part), begin, to.data() + begin, end - begin);
      });
      tensors_.push_back({reinterpret_cast<const std::byte*>(to.data()), finteam::DType::bf16, raw.shape});
    }
  }
  [[nodiscard]] std::span<const finteam::RawTensor> get() const noexcept { return tensors_; }

 private:
  [[nodiscard]] static std::uint64_t stream(std::uint64_t seed, std::size_t part) noexcept {
    return hash(seed + 977 * part) >> 40;
  }
  std::vector<std::vector<finteam::bf16>> numbers_;
  std::vector<finteam::RawTensor> tensors_;
};

/// A backend whose weights are random, whatever a file has: the same of every backend that is asked in the same order.
template <class B>
class RandomWeights : public B {
 public:
  using B::B;
  using B::matmul;

  void matmul(std::span<const finteam::Product<RandomWeights>> products) {
    products_.clear();
    for (const auto& p : products) products_.push_back({p.input, p.w, p.write, p.y, p.chosen, p.first});
    B::matmul(std::span<const finteam::Product<B>>(products_));
  }

  [[nodiscard]] typename B::Matrix matrix(std::span<const finteam::RawTensor> parts, finteam::Join join,
                                          finteam::Weights weights, std::pmr::memory_resource* memory) {
    index_t elements = 0;
    for (const auto& part : parts) elements += part.size();
    const bool large = elements >= many_;
    if constexpr (std::is_same_v<B, finteam::Cuda>) {
      if (large) {
        for (const Known& k : known_) {
          if (k.is(parts, join, weights)) return count(duplicate(k.first));
        }
      }
    }
    const std::uint64_t seed = large ? shape_seed(parts) : 1'000'003 * ++small_;
    auto w = B::matrix(RandomTensors(parts, seed, 0.0F, on()).get(), join, weights, memory);
    if constexpr (std::is_same_v<B, finteam::Cuda>) {
      if (large) known_.push_back({shapes_of(parts), join, weights, w.get()});
      return count(std::move(w));
    } else {
      return w;
    }
  }
  [[nodiscard]] auto vector(std::span<const finteam::RawTensor> parts, std::pmr::memory_resource* memory,
                            float plus = 0) {
    if (parts.front().dtype == finteam::DType::f32) return B::vector(parts, memory, plus);  // no file's
    return B::vector(RandomTensors(parts, 1'000'003 * ++small_, 1.0F, on()).get(), memory, plus);
  }

  /// Bytes of all matrices so far, in the device's memory.
  [[nodiscard]] double bytes() const noexcept { return bytes_; }
  /// From now on the small ones, too, are copies of the first of their shape.
  void copy_all() noexcept { many_ = 0; }
  /// Of large matrices of such tensors.
  [[nodiscard]] static std::uint64_t shape_seed(std::span<const finteam::RawTensor> parts) {
    std::uint64_t seed = 7;
    for (const auto& s : shapes_of(parts)) seed = hash(seed + static_cast<std::uint64_t>(s[0] * 1'000'000 + s[1]));
    return seed;
  }

 private:
  using Shapes = std::vector<std::array<index_t, 2>>;

  struct Known {
    Shapes shapes;
    finteam::Join join;
    finteam::Weights weights;
    finteam::detail::cuda::Matrix first;
    [[nodiscard]] bool is(std::span<const finteam::RawTensor> parts, finteam::Join j, finteam::Weights w) const {
      return j == join && w == weights && shapes_of(parts) == shapes;
    }
  };
  [[nodiscard]] static Shapes shapes_of(std::span<const finteam::RawTensor> parts) {
    Shapes all;
    for (const auto& part : parts) all.push_back({part.shape[0], part.shape[1]});
    return all;
  }
  [[nodiscard]] finteam::ExecutorRef on() const {
    if constexpr (requires { this->executor(); }) return this->executor();
    return {};
  }
  [[nodiscard]] auto duplicate(const finteam::detail::cuda::Matrix& m) {
    finteam::DeviceMatrix w(this->context(), finteam::detail::cuda::MatrixLayout(m));
    copy_on_device(const_cast<void*>(w.get().data), m.data, w.bytes());
    return w;
  }
  [[nodiscard]] finteam::DeviceMatrix count(finteam::DeviceMatrix w) noexcept {
    bytes_ += static_cast<double>(w.bytes());
    return w;
  }

  index_t many_ = 1 << 20;  ///< elements of what is large
  std::vector<Known> known_;
  std::vector<finteam::Product<B>> products_;
  std::uint64_t small_ = 0;
  double bytes_ = 0;
};

}  // namespace bench
