// libFuzzer: any bytes are a LoraConfig that gives every module a rank and a scale, or an Error, and soon.
// clang++ -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -Iinclude tests/fuzz/adapter_config_fuzz.cpp -lpcre2-8
// && ./a.out -max_total_time=60 tests/refused
#include <finteam/expert/lora.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const finteam::JsonFile file(text, "adapter_config.json", finteam::LoraConfig::limits);
    const finteam::LoraConfig c(file.root());
    for (const char* module : {"lm_head", "model.layers.0.self_attn.q_proj", "model.layers.79.mlp.down_proj"}) {
      const finteam::index_t r = c.rank(module);
      if (r < 1 || r > 65'536 || !std::isfinite(c.scale(module))) __builtin_trap();
    }
  } catch (const finteam::Error& error) {
    if (error.code() == finteam::Code::invalid_argument) __builtin_trap();
    if (std::string_view(error.what()).size() > 2000) __builtin_trap();
  }
  return 0;
}
