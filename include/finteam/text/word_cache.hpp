// The ids of short words that came lately. Its size is fixed: a word takes the place of another with its hash.
#pragma once

#include <finteam/text/vocabulary.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace finteam::inline FINTEAM_ABI::detail {

/// For the words of one tokenizer. Allocates when it is made, then never.
class WordCache {
 public:
  explicit WordCache(std::size_t places) : slots_(places) {}

  /// Appends the ids of a word, computed by append(out) unless they are known.
  template <class Append>
  void get(std::string_view word, std::vector<std::int32_t>& out, Append&& append) {
    if (word.size() > max_bytes) return append(out);
    Slot& slot = slots_[place(word)];
    if (slot.bytes == word.size() && std::memcmp(slot.word.data(), word.data(), word.size()) == 0) {
      out.insert(out.end(), slot.ids.begin(), slot.ids.begin() + slot.count);
      return;
    }
    const std::size_t before = out.size();
    append(out);
    const std::size_t count = out.size() - before;
    if (count > slot.ids.size()) return;
    slot.bytes = static_cast<std::uint8_t>(word.size());
    slot.count = static_cast<std::uint8_t>(count);
    std::memcpy(slot.word.data(), word.data(), word.size());
    std::copy(out.begin() + static_cast<std::ptrdiff_t>(before), out.end(), slot.ids.begin());
  }

 private:
  static constexpr std::size_t max_bytes = 22;
  struct Slot {
    std::uint8_t bytes = 255, count = 0;
    std::array<char, max_bytes> word;
    std::array<std::int32_t, 10> ids;
  };

  [[nodiscard]] std::size_t place(std::string_view word) const noexcept {
    std::uint64_t h = word.size();
    std::size_t i = 0;
    for (std::uint64_t part = 0; i + 8 <= word.size(); i += 8) {
      std::memcpy(&part, word.data() + i, 8);
      h = mix_bits(h ^ part);
    }
    if (i < word.size()) {
      std::uint64_t part = 0;
      std::memcpy(&part, word.data() + i, word.size() - i);
      h = mix_bits(h ^ part);
    }
    return h & (slots_.size() - 1);
  }

  std::vector<Slot> slots_;  // a power of two
};

}  // namespace finteam::inline FINTEAM_ABI::detail
