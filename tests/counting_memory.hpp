// A memory resource that counts, for tests of what is taken and given back.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <memory_resource>

namespace test {

class CountingMemory final : public std::pmr::memory_resource {
 public:
  [[nodiscard]] std::size_t now() const noexcept { return now_; }
  [[nodiscard]] std::size_t most() const noexcept { return most_; }

 private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    void* const data = std::pmr::new_delete_resource()->allocate(bytes, alignment);
    now_ += bytes;
    most_ = std::max<std::size_t>(most_, now_);
    return data;
  }
  void do_deallocate(void* data, std::size_t bytes, std::size_t alignment) override {
    now_ -= bytes;
    std::pmr::new_delete_resource()->deallocate(data, bytes, alignment);
  }
  [[nodiscard]] bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
    return this == &other;
  }

  std::atomic<std::size_t> now_{0}, most_{0};
};

}  // namespace test
