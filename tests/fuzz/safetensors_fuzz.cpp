// libFuzzer: any bytes are a safetensors file, every byte of whose tensors lies within them, or an Error.
// clang++ -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -Iinclude tests/fuzz/safetensors_fuzz.cpp && ./a.out
// -max_total_time=60 tests/refused
#include <finteam/file/safetensors.hpp>

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::byte> bytes = std::as_bytes(std::span(data, size));
  try {
    const auto file = finteam::Safetensors::parse(bytes, "fuzz.safetensors");
    std::size_t total = 0;
    for (const std::string_view name : file.names()) {
      try {
        const finteam::RawTensor t = file.tensor(name);
        const auto n = static_cast<std::size_t>(t.size());
        if (t.data < bytes.data() || t.data + n * finteam::bytes_of(t.dtype) > bytes.data() + size) __builtin_trap();
        total += n * finteam::bytes_of(t.dtype);
        float sum = 0;
        for (finteam::index_t i = 0; i < t.size(); ++i) sum += t[i];
        volatile float kept = sum;
        (void)kept;
      } catch (const finteam::Error& error) {
        if (error.code() != finteam::Code::unsupported) __builtin_trap();
      }
    }
    if (total > file.bytes() || file.bytes() + 8 > size) __builtin_trap();
  } catch (const finteam::Error& error) {
    if (std::string_view(error.what()).size() > 5000) __builtin_trap();
  }
  return 0;
}
