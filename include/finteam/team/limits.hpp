// What a session is made for.
#pragma once

#include <finteam/backend/kv_page.hpp>
#include <finteam/core/error.hpp>
#include <finteam/core/huge_pages.hpp>
#include <finteam/team/task.hpp>
#include <finteam/text/tokenizer.hpp>

#include <algorithm>
#include <memory_resource>
#include <string>
#include <utility>

namespace finteam::inline FINTEAM_ABI {

/// What a session is made for. A call beyond it is refused; within it nothing is allocated.
struct SessionLimits {
  index_t tokens = 0;         ///< longest prompt with what follows it; 0: the team's context, at most 4,096
  index_t labels = 16;        ///< most labels of one question
  index_t label_bytes = 128;  ///< longest label
  index_t rows = 256;      ///< most rows of one step: a prompt's chunk; the tokens of all labels of a question together
  index_t text_bytes = 0;  ///< longest text, with its instruction; 0: 16 for each token
  CacheFormat cache = CacheFormat::f32;              ///< how keys and values are kept; bf16 and int8 round queries, too
  std::pmr::memory_resource* memory = huge_pages();  ///< for caches and scratch; outlives the session
};

namespace detail {

/// The limits with their defaults filled in. Throws Error(invalid_argument) on limits that make no sense.
[[nodiscard]] inline SessionLimits checked(SessionLimits limits, index_t context) {
  const auto refuse = [](const char* where, std::string expected, index_t found) {
    throw Error(Code::invalid_argument, std::string("session limits: ") + where, std::move(expected),
                std::to_string(found));
  };
  if (limits.tokens == 0) limits.tokens = std::min<index_t>(context, 4096);
  if (limits.tokens < 2 || limits.tokens > context) {
    refuse("tokens", "2 to the team's context, " + std::to_string(context), limits.tokens);
  }
  if (limits.text_bytes == 0) limits.text_bytes = 16 * limits.tokens;
  if (limits.text_bytes < 1 || limits.text_bytes > static_cast<index_t>(Tokenizer::max_text_bytes))
    refuse("text_bytes", "1 to 2^28", limits.text_bytes);
  if (limits.labels < 1 || limits.labels > most_labels) {
    refuse("labels", "1 to " + std::to_string(most_labels), limits.labels);
  }
  if (limits.label_bytes < 1 || limits.label_bytes > 65536) refuse("label_bytes", "1 to 65536", limits.label_bytes);
  if (limits.rows < 1 || limits.rows > 65536) refuse("rows", "1 to 65536", limits.rows);
  return limits;
}

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
