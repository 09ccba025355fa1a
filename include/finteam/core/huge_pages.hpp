// Memory for what is large and read as a stream: weights, caches. On Linux its pages are huge where the system has
// such, so that a stream misses no page table. Not here: a pool; every large block is a mapping of its own.
#pragma once

#include <finteam/core/config.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory_resource>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace finteam::inline FINTEAM_ABI {

/// Blocks of 2 MiB and more begin at a huge page and go back to the system when they are freed; they read as zeros.
/// Smaller ones, and all of them on other systems, come from new and delete. Without state: any two are equal.
class HugePages final : public std::pmr::memory_resource {
 public:
  /// Bytes of a huge page, and of the smallest block that gets one.
  static constexpr std::size_t page_bytes = std::size_t{1} << 21;

  HugePages() noexcept = default;

 private:
  /// Throws std::bad_alloc.
  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    if (!is_large(bytes, alignment)) return ::operator new(bytes, std::align_val_t(alignment));
    return map(whole_pages(bytes));
  }
  void do_deallocate(void* data, std::size_t bytes, std::size_t alignment) override {
    if (!is_large(bytes, alignment)) return ::operator delete(data, std::align_val_t(alignment));
    unmap(data, whole_pages(bytes));
  }
  [[nodiscard]] bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
    return dynamic_cast<const HugePages*>(&other) != nullptr;
  }

  /// Up to a multiple of 64 KiB, which every system's small pages divide. The last part of a block has such pages, so
  /// no more is taken than was asked for.
  [[nodiscard]] static std::size_t whole_pages(std::size_t bytes) {
    if (bytes > std::numeric_limits<std::size_t>::max() - 2 * page_bytes) throw std::bad_alloc();
    return (bytes + 0xFFFF) & ~std::size_t{0xFFFF};
  }

#if defined(__linux__)
  [[nodiscard]] static bool is_large(std::size_t bytes, std::size_t alignment) noexcept {
    return bytes >= page_bytes && alignment <= page_bytes;
  }
  [[nodiscard]] static void* map(std::size_t bytes) {
    // The system aligns to small pages only: more is taken, and what lies before and after is given back.
    void* const all = ::mmap(nullptr, bytes + page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) throw std::bad_alloc();
    const std::size_t past = reinterpret_cast<std::uintptr_t>(all) % page_bytes,
                      before = (page_bytes - past) % page_bytes;
    std::byte* const data = static_cast<std::byte*>(all) + before;
    unmap(all, before);
    unmap(data + bytes, page_bytes - before);
    ::madvise(data, bytes, MADV_HUGEPAGE);  // a wish
    return data;
  }
  static void unmap(void* data, std::size_t bytes) noexcept {
    if (bytes != 0) ::munmap(data, bytes);
  }
#else
  [[nodiscard]] static bool is_large(std::size_t, std::size_t) noexcept { return false; }
  [[nodiscard]] static void* map(std::size_t) { throw std::bad_alloc(); }
  static void unmap(void*, std::size_t) noexcept {}
#endif
};

/// A HugePages for everybody, never destroyed: what a host keeps in its own statics may outlive ours.
[[nodiscard]] inline std::pmr::memory_resource* huge_pages() noexcept {
  union Forever {
    HugePages resource;
    Forever() noexcept : resource() {}
    ~Forever() {}
  };
  static const Forever forever;
  return const_cast<HugePages*>(&forever.resource);  // its calls change nothing in it
}

}  // namespace finteam::inline FINTEAM_ABI
