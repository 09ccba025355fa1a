// Prints one hash over the bits of every op's outputs. Built twice, with -ffp-contract=off and =fast: the lines must be
// equal (law 3). They are equal, too, between compilers.
#include <finteam/backend/cpu.hpp>

#include "op_cases.hpp"

#include <cstdio>

int main() {
  std::uint64_t hash = 0xCBF29CE484222325U;  // FNV-1a
  finteam::Cpu cpu;
  for (const auto how : op_cases::kept) {
    for (const auto& shape : op_cases::shapes()) {
      for (const auto& output : op_cases::run(cpu, shape, {0, shape.rows}, how, 11)) {
        for (const float value : output.values) {
          hash = (hash ^ std::bit_cast<std::uint32_t>(value)) * 0x100000001B3U;
        }
      }
    }
  }
  for (const auto format : {finteam::Format::int1, finteam::Format::int2}) {
    const finteam::index_t n = 40, k = 300, t = 19;
    inputs::Random random{7};
    std::vector<std::byte> numbers(static_cast<std::size_t>(n * finteam::delta_row_bytes(format, k)));
    for (std::byte& b : numbers) b = static_cast<std::byte>(random.bits());
    std::vector<float> scales = inputs::values(n, 8), x = inputs::values(t * k, 9), y = inputs::values(t * n, 10);
    const finteam::PackedMatrix w(
        finteam::RawDelta{numbers.data(), reinterpret_cast<const std::byte*>(scales.data()), n, n, k, format});
    op_cases::product(cpu, op_cases::matrix(x, k), w, finteam::Write::accumulate, op_cases::matrix(y, n));
    for (const float value : y) hash = (hash ^ std::bit_cast<std::uint32_t>(value)) * 0x100000001B3U;
  }
  std::printf("%016llx\n", static_cast<unsigned long long>(hash));
}
