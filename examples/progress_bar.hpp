// A bar on standard error while weights load, when that is a terminal. For programs; the library never prints.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <string>

inline void progress_bar(std::uint64_t done, std::uint64_t total) {
  if (total == 0 || isatty(STDERR_FILENO) == 0) return;
  const std::size_t width = 40, filled = static_cast<std::size_t>(done * width / total);
  const std::string bar = std::string(filled, '#') + std::string(width - filled, '.');
  std::fprintf(stderr, "\rloading [%s] %3u%%%s", bar.c_str(), static_cast<unsigned>(done * 100 / total),
               done >= total ? "\n" : "");
}
