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
  std::printf("%016llx\n", static_cast<unsigned long long>(hash));
}
