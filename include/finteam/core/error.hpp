// The one exception of the library and the words it is made of.
// Not here: recovery. An Error leaves every object that was involved as it was, or unusable and destroyable.
#pragma once

#include <finteam/core/config.hpp>

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace finteam::inline FINTEAM_ABI {

/// What went wrong, for a program to branch on.
enum class Code {
  not_found,         ///< a file, tensor, task, role or key that is not there
  malformed,         ///< bytes that break their own format (truncated, overlapping, lying, not UTF-8)
  unsupported,       ///< well-formed, but a feature that this build does not implement
  mismatch,          ///< two well-formed things that contradict each other (config and tensors, roles, gate)
  invalid_argument,  ///< a caller's argument outside its documented range
  limit_exceeded,    ///< more than a session was made for, or a parser's bound
  cancelled,         ///< the caller's stop token was set
  deadline,          ///< the caller's deadline passed
  system,            ///< the operating system or a library refused (open, mmap, PCRE2)
};

/// Thrown at the door (open, load, construct, and at the start of a call) for bad input.
/// `what()` reads `where: expected E, found F`.
class Error : public std::runtime_error {
 public:
  /// where: file, tensor, role or argument; expected and found: phrases without a full stop.
  Error(Code code, std::string where, std::string expected, std::string found)
      : std::runtime_error(where + ": expected " + expected + ", found " + found),
        code_(code),
        where_(std::move(where)),
        expected_(std::move(expected)),
        found_(std::move(found)) {}

  /// What went wrong, and where; what was expected there, and what was found: the parts of what().
  [[nodiscard]] Code code() const noexcept { return code_; }
  [[nodiscard]] const std::string& where() const noexcept { return where_; }
  [[nodiscard]] const std::string& expected() const noexcept { return expected_; }
  [[nodiscard]] const std::string& found() const noexcept { return found_; }

 private:
  Code code_;
  std::string where_, expected_, found_;
};

/// The name of a code, as the enumerator is spelt.
[[nodiscard]] constexpr std::string_view name(Code code) noexcept {
  switch (code) {
    case Code::not_found: return "not_found";
    case Code::malformed: return "malformed";
    case Code::unsupported: return "unsupported";
    case Code::mismatch: return "mismatch";
    case Code::invalid_argument: return "invalid_argument";
    case Code::limit_exceeded: return "limit_exceeded";
    case Code::cancelled: return "cancelled";
    case Code::deadline: return "deadline";
    case Code::system: return "system";
  }
  return "unknown";
}

}  // namespace finteam::inline FINTEAM_ABI
