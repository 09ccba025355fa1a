// The door to PCRE2 (8 bit): its objects as owners, its statuses as Errors, and fixed memory for its matcher.
// Not here: patterns and searches (pattern.hpp).
#pragma once

#ifndef PCRE2_CODE_UNIT_WIDTH
#define PCRE2_CODE_UNIT_WIDTH 8
#endif

#include <finteam/core/error.hpp>
#include <finteam/core/tensor.hpp>

#include <pcre2.h>

#include <array>
#include <cstddef>
#include <memory>
#include <string>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// A PCRE2 status as an Error. Compile errors are positive, match errors negative.
[[noreturn]] inline void throw_pcre2(int status, const std::string& where) {
  std::array<PCRE2_UCHAR8, 160> message{};
  pcre2_get_error_message_8(status, message.data(), message.size());
  const bool limit = status == PCRE2_ERROR_MATCHLIMIT || status == PCRE2_ERROR_HEAPLIMIT ||
                     status == PCRE2_ERROR_DEPTHLIMIT || status == PCRE2_ERROR_JIT_STACKLIMIT ||
                     status == PCRE2_ERROR_NOMEMORY;
  throw Error(limit ? Code::limit_exceeded : (status > 0 ? Code::malformed : Code::system), where,
              limit ? "a text that the pattern matches within its limits" : "a pattern that PCRE2 accepts",
              reinterpret_cast<const char*>(message.data()));
}

struct Pcre2Free {
  void operator()(pcre2_code_8* p) const noexcept { pcre2_code_free_8(p); }
  void operator()(pcre2_compile_context_8* p) const noexcept { pcre2_compile_context_free_8(p); }
  void operator()(pcre2_general_context_8* p) const noexcept { pcre2_general_context_free_8(p); }
  void operator()(pcre2_match_context_8* p) const noexcept { pcre2_match_context_free_8(p); }
  void operator()(pcre2_match_data_8* p) const noexcept { pcre2_match_data_free_8(p); }
  void operator()(pcre2_jit_stack_8* p) const noexcept { pcre2_jit_stack_free_8(p); }
};
template <class T>
using Pcre2Ptr = std::unique_ptr<T, Pcre2Free>;

/// Fixed memory for one matcher. PCRE2's interpreter doubles its frames as it needs them; when only the objects that
/// were there at settle() are left, the rest is free again.
class Pcre2Arena {
 public:
  explicit Pcre2Arena(std::size_t bytes) : buffer_(bytes) {}

  void settle() noexcept {
    base_used_ = used_;
    base_live_ = live_;
  }
  static void* allocate(std::size_t bytes, void* self) noexcept {
    auto& a = *static_cast<Pcre2Arena*>(self);
    const std::size_t rounded = (bytes + 63) / 64 * 64;
    if (rounded < bytes || rounded > a.buffer_.size() - a.used_) return nullptr;
    void* p = a.buffer_.data() + a.used_;
    a.used_ += rounded;
    ++a.live_;
    return p;
  }
  static void release(void* p, void* self) noexcept {
    auto& a = *static_cast<Pcre2Arena*>(self);
    if (p != nullptr && --a.live_ == a.base_live_) a.used_ = a.base_used_;
  }

 private:
  Buffer buffer_;
  std::size_t used_ = 0, base_used_ = 0;
  std::size_t live_ = 0, base_live_ = 0;
};

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
