// Runs a fuzz target's entry without libFuzzer: over every file under the given folders, as it is, cut short, and with
// bytes changed. The changes are the same every time. Not a search: that is what the libFuzzer build is for.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using Bytes = std::vector<std::uint8_t>;

std::uint64_t next(std::uint64_t& state) {  // splitmix64
  std::uint64_t z = (state += 0x9E3779B97F4A7C15U);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
  return z ^ (z >> 31);
}

// A copy that ends where its bytes end, so that the sanitizer sees one byte too far.
void run(const Bytes& bytes, std::size_t size) {
  const Bytes exact(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

int replay(const Bytes& bytes) {
  run(bytes, bytes.size());
  int runs = 1;
  if (bytes.empty() || bytes.size() > 65536) return runs;
  std::uint64_t state = bytes.size();
  const std::size_t cuts = std::min<std::size_t>(bytes.size(), 64);
  for (std::size_t i = 0; i < cuts; ++i, ++runs) run(bytes, i * bytes.size() / cuts);
  for (int i = 0; i < 128; ++i, ++runs) {
    Bytes changed = bytes;
    for (int j = 0; j <= i % 4; ++j) changed[next(state) % changed.size()] = static_cast<std::uint8_t>(next(state));
    run(changed, changed.size());
  }
  return runs;
}

}  // namespace

int main(int argc, char** argv) {
  int files = 0;
  int runs = 0;
  for (int i = 1; i < argc; ++i) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(argv[i])) {
      if (!entry.is_regular_file()) continue;
      std::ifstream in(entry.path(), std::ios::binary);
      const Bytes bytes{std::istreambuf_iterator<char>(in), {}};
      try {
        runs += replay(bytes);
      } catch (const std::exception& e) {
        std::cerr << entry.path() << ": an exception left the target: " << e.what() << "\n";
        return 1;
      }
      ++files;
    }
  }
  std::cout << files << " files, " << runs << " runs\n";
  return files > 0 ? 0 : 1;
}
