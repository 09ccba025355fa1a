// The strings of the parity tests, drawn as tools/make_tokenizer_parity.py draws them, and hashes of ids.
#pragma once

#include <finteam/file/json.hpp>
#include <finteam/text/unicode.hpp>

#include "text/goldens.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace finteam_test {

/// splitmix64.
class StringRandom {
 public:
  explicit StringRandom(std::uint64_t seed) : state_(seed) {}
  std::size_t below(std::size_t n) {
    std::uint64_t z = (state_ += 0x9E3779B97F4A7C15ULL);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return (z ^ (z >> 31)) % n;
  }
  template <class T>
  const T& of(const std::vector<T>& items) {
    return items[below(items.size())];
  }

 private:
  std::uint64_t state_;
};

class StringPool {
 public:
  using Strings = std::vector<std::string>;

  explicit StringPool(const finteam::Json& pool)
      : snippets_(pool["snippets"].get<Strings>()),
        words_(pool["words"].get<Strings>()),
        numbers_(pool["numbers"].get<Strings>()),
        code_(pool["code"].get<Strings>()) {
    std::uint32_t block = 0xFFFFFFFF;
    for (const auto& range : pool["ranges"]) {
      for (std::uint32_t c = range[0]; c <= range[1].get<std::uint32_t>(); ++c) {
        if (c / 128 != block) blocks_.emplace_back();
        block = c / 128;
        blocks_.back().emplace_back(finteam::detail::utf8_encode(c).view());
      }
    }
    for (const auto& some : pool["combining"]) {
      const auto text = some.get<std::string>();
      combining_.emplace_back();
      for (std::size_t at = 0, n = 0; at < text.size(); at += n) {
        n = finteam::detail::utf8_length(text[at]);
        combining_.back().push_back(text.substr(at, n));
      }
    }
  }

  /// String number n.
  [[nodiscard]] std::string operator()(std::uint64_t n) const {
    StringRandom r(n);
    const std::size_t kind = r.below(100);
    std::string s;
    if (kind < 20) {
      for (std::size_t i = 1 + r.below(6); i > 0; --i) s += r.of(snippets_);
    } else if (kind < 40) {
      const Strings& near = r.of(blocks_);
      for (std::size_t i = 1 + r.below(12); i > 0; --i) s += r.below(10) < 8 ? r.of(near) : r.of(ends_);
    } else if (kind < 50) {
      for (std::size_t i = 1 + r.below(8); i > 0; --i) s += r.of(r.of(blocks_));
    } else if (kind < 62) {
      const Strings& near = r.of(combining_);
      for (std::size_t i = 2 + r.below(8); i > 0; --i) s += r.below(10) < 6 ? r.of(near) : r.of(r.of(combining_));
    } else if (kind < 85) {
      add_sentence(r, s);
    } else {
      for (std::size_t i = 1 + r.below(6); i > 0; --i) add_code(r, s);
    }
    return s;
  }

 private:
  void add_sentence(StringRandom& r, std::string& s) const {
    const std::size_t words = 1 + r.below(12);
    for (std::size_t i = 0; i < words; ++i) {
      const std::size_t what = r.below(12);
      s += i == 0 ? "" : what == 0 ? "  " : what == 1 ? "\n" : what == 2 ? ", " : " ";
      s += r.below(5) == 0 ? r.of(numbers_) : r.of(words_);
    }
  }
  void add_code(StringRandom& r, std::string& s) const {
    const std::size_t what = r.below(8);
    if (what == 0) {
      s += std::string(1 + r.below(9), ' ');
    } else if (what == 1) {
      s += std::string(1 + r.below(4), '\n');
    } else {
      s += what == 2 ? std::string("\t") : what < 5 ? r.of(words_) : r.of(code_);
    }
  }

  Strings snippets_, words_, numbers_, code_, ends_ = {" ", "\n", "1", "a", "'", "\t"};
  std::vector<Strings> blocks_, combining_;
};

/// FNV-1a of 64 bits over ids as little-endian 32-bit numbers, as the goldens' tools write it.
class IdHash {
 public:
  void add(std::int32_t id) {
    for (int shift = 0; shift < 32; shift += 8)
      hash_ = (hash_ ^ (static_cast<std::uint32_t>(id) >> shift & 0xFF)) * 0x100000001B3ULL;
  }
  [[nodiscard]] std::string text() const {
    std::string s;
    for (int shift = 60; shift >= 0; shift -= 4) s += "0123456789abcdef"[hash_ >> shift & 0xF];
    return s;
  }

 private:
  std::uint64_t hash_ = 0xCBF29CE484222325ULL;
};

}  // namespace finteam_test
