// Experts behind a router in a device's memory: where their matrices are, and which of them rows chose.
// Not here: how they are chosen (kernels/route.cu).
#pragma once

#include <finteam/backend/cuda/device_matrix.hpp>
#include <finteam/backend/routes.hpp>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// One matrix of each expert of a layer, all alike, as addresses; moves only.
class DeviceExperts {
 public:
  /// More have no room in the shared memory of the kernel that chooses.
  static constexpr std::size_t most = 4096;

  DeviceExperts() = default;
  template <class B>
  DeviceExperts(const std::shared_ptr<detail::CudaContext>& context, std::span<const ExpertMatrix<B>> parts) {
    if (parts.empty() || parts.size() > most) return;
    const auto like = [](const ExpertMatrix<B>& part) {
      detail::cuda::Matrix m = part.w->get();
      m.data = nullptr;
      return m;
    };
    first_ = like(parts.front());
    const bool delta = detail::cuda::is_delta(first_.format);
    if (delta || !std::all_of(parts.begin(), parts.end(), [&](const auto& part) { return like(part) == first_; })) {
      return;
    }
    std::vector<const void*> addresses;
    for (const auto& part : parts) addresses.push_back(part.w->get().data);
    biased_ = parts.front().bias.size() != 0;
    for (const auto& part : parts) addresses.push_back(part.bias.data());
    count_ = parts.size();
    const std::size_t bytes = addresses.size() * sizeof(void*);
    addresses_ = detail::DeviceBuffer(context, bytes);
    detail::check(detail::cuda::copy_in(context->get(), addresses_.data(), addresses.data(), bytes),
                  "addresses to be copied to the device");
    detail::check(detail::cuda::wait(context->get()), "addresses to be copied to the device");
  }

  [[nodiscard]] bool empty() const noexcept { return count_ == 0; }
  /// Any of the matrices, without its data.
  [[nodiscard]] const detail::cuda::Matrix& like() const noexcept { return first_; }
  [[nodiscard]] detail::cuda::Experts get() const noexcept {
    const auto* const data = static_cast<const void* const*>(addresses_.data());
    return {data, biased_ ? reinterpret_cast<const float* const*>(data + count_) : nullptr};
  }

 private:
  detail::cuda::Matrix first_{};
  std::size_t count_ = 0;
  bool biased_ = false;
  detail::DeviceBuffer addresses_;
};

/// What a router of so many experts makes of up to `rows` rows; moves only.
class DeviceRoutes {
 public:
  DeviceRoutes() = default;
  DeviceRoutes(const std::shared_ptr<detail::CudaContext>& context, index_t rows, index_t experts, RouteRule rule)
      : rows_(rows),
        experts_(experts),
        top_k_(rule.top_k == 0 ? experts : std::min(rule.top_k, experts)),
        renormalise_(rule.renormalise),
        numbers_(context, {2 * rows * top_k_ + groups() * (2 + rows)}) {}

  /// Of `rows` rows.
  [[nodiscard]] detail::cuda::Routes get(index_t rows) const noexcept {
    std::int32_t *const expert = numbers_.data(), *const weight = expert + rows_ * top_k_,
                        *const group = weight + rows_ * top_k_;
    return {expert,
            reinterpret_cast<float*>(weight),
            group,
            group + 2 * groups(),
            static_cast<std::int32_t>(rows),
            static_cast<std::int32_t>(top_k_),
            static_cast<std::int32_t>(experts_)};
  }
  [[nodiscard]] index_t top_k() const noexcept { return top_k_; }
  [[nodiscard]] bool renormalises() const noexcept { return renormalise_; }

 private:
  [[nodiscard]] index_t groups() const noexcept { return std::min(experts_, rows_ * top_k_); }

  index_t rows_ = 0, experts_ = 0, top_k_ = 0;
  bool renormalise_ = true;
  DeviceTensor<std::int32_t, 1> numbers_;
};

}  // namespace finteam::inline FINTEAM_ABI
