// How a caller stops a computation: a stop token and a deadline, looked at before every layer.
#pragma once

#include <finteam/core/error.hpp>

#include <chrono>
#include <optional>
#include <stop_token>

namespace finteam::inline FINTEAM_ABI {

/// A stop token and a deadline; the default never interrupts.
struct Interrupt {
  std::stop_token stop{};
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();

  /// Code::cancelled or Code::deadline when it is time to stop, else nothing.
  [[nodiscard]] std::optional<Code> pending() const noexcept {
    if (stop.stop_requested()) return Code::cancelled;
    if (deadline != std::chrono::steady_clock::time_point::max() && std::chrono::steady_clock::now() >= deadline) {
      return Code::deadline;
    }
    return std::nullopt;
  }
};

}  // namespace finteam::inline FINTEAM_ABI
