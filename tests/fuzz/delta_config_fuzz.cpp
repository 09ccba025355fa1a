// libFuzzer: any bytes are a DeltaConfig that is written as it was read, or an Error.
// clang++ -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -Iinclude tests/fuzz/delta_config_fuzz.cpp && ./a.out
// -max_total_time=60 tests/refused
#include <finteam/file/delta.hpp>

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using finteam::DeltaConfig;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const finteam::JsonFile file(text, "delta_config.json", DeltaConfig::limits);
    const DeltaConfig c = DeltaConfig::read(file.root());
    if (!finteam::is_delta(c.format) || c.base_hash.size() != 16 || c.base_header_hash.size() != 16) __builtin_trap();
    if (c.json() != file.root().json()) __builtin_trap();
  } catch (const finteam::Error& error) {
    if (error.code() == finteam::Code::invalid_argument) __builtin_trap();
    if (std::string_view(error.what()).size() > 2000) __builtin_trap();
  }
  return 0;
}
