// Strings as a trie over their bytes: which of them begin a text? Built once, then immutable.
#pragma once

#include <finteam/core/error.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// Nodes breadth first; the children of one stand together, in the order of their bytes.
class ByteTrie {
 public:
  using Node = std::uint32_t;
  static constexpr Node root = 0;
  static constexpr std::size_t max_nodes = std::size_t{1} << 24;  ///< ten times those of the largest vocabularies

  ByteTrie() : nodes_(1) { first_.fill(0); }

  /// Strings, none empty and none twice, with their values (not negative). The strings may go afterwards.
  /// Throws Error(limit_exceeded) for more than max_nodes.
  explicit ByteTrie(std::vector<std::pair<std::string_view, std::int32_t>> strings) : ByteTrie() {
    std::sort(strings.begin(), strings.end());
    struct Range {
      std::size_t begin, end, depth;
    };
    std::vector<Range> ranges = {{0, strings.size(), 0}};
    for (std::size_t n = 0; n < nodes_.size(); ++n) {
      Range r = ranges[n];
      if (r.begin < r.end && strings[r.begin].first.size() == r.depth) nodes_[n].value = strings[r.begin++].second;
      nodes_[n].children = static_cast<Node>(nodes_.size());
      while (r.begin < r.end) {
        const auto byte = static_cast<unsigned char>(strings[r.begin].first[r.depth]);
        std::size_t end = r.begin;
        while (end < r.end && static_cast<unsigned char>(strings[end].first[r.depth]) == byte) ++end;
        ranges.push_back({r.begin, end, r.depth + 1});
        nodes_.push_back({.byte = byte});
        ++nodes_[n].count;
        r.begin = end;
      }
      if (nodes_.size() > max_nodes) {
        throw Error(Code::limit_exceeded, "vocabulary",
                    "at most " + std::to_string(max_nodes) + " beginnings of tokens", "more");
      }
    }
    for (Node i = 0; i < nodes_[root].count; ++i)
      first_[nodes_[nodes_[root].children + i].byte] = nodes_[root].children + i;
  }

  /// The child of a node by a byte; root if there is none. Allocates nothing.
  [[nodiscard]] Node child(Node node, unsigned char byte) const noexcept {
    if (node == root) return first_[byte];
    const Entry& e = nodes_[node];
    Node low = e.children, count = e.count;
    while (count > 4) {
      const Node half = count / 2;
      if (nodes_[low + half].byte <= byte)
        low += half, count -= half;
      else
        count = half;
    }
    for (const Node end = low + count; low < end; ++low) {
      if (nodes_[low].byte == byte) return low;
    }
    return root;
  }
  /// The value of the string that ends at a node, or -1.
  [[nodiscard]] std::int32_t value(Node node) const noexcept { return nodes_[node].value; }

  /// The node of a string from a node on; root if there is none (or the string is empty, from the root).
  [[nodiscard]] Node walk(Node node, std::string_view string) const noexcept {
    for (const char c : string) {
      node = child(node, static_cast<unsigned char>(c));
      if (node == root) break;
    }
    return node;
  }

  struct Match {
    std::int32_t value = -1;
    std::size_t size = 0;
  };
  /// The longest string that `text` starts with, from a node on; value -1 if there is none.
  [[nodiscard]] Match longest(std::string_view text, Node node = root) const noexcept {
    Match best;
    for (std::size_t i = 0; i < text.size(); ++i) {
      node = child(node, static_cast<unsigned char>(text[i]));
      if (node == root) break;
      if (value(node) >= 0) best = {value(node), i + 1};
    }
    return best;
  }

 private:
  struct Entry {
    Node children = 0;
    std::int32_t value = -1;
    std::uint16_t count = 0;
    std::uint8_t byte = 0;
  };
  std::vector<Entry> nodes_;
  std::array<Node, 256> first_;  // of the root, by byte
};

}  // namespace finteam::inline FINTEAM_ABI
