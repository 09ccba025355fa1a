// libFuzzer: any bytes are a Config that keeps its promises, or an Error.
// clang++ -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -Iinclude tests/fuzz/config_fuzz.cpp && ./a.out
// -max_total_time=60 tests/refused
#include <finteam/file/config.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    finteam::Config c = finteam::parse_config(text, "config.json");
    finteam::merge_generation_config(text, "generation_config.json", c);
    const auto fits = [&](std::int32_t id) { return id >= 0 && id < c.v; };
    bool good = c.v > 0 && c.d > 0 && c.layers > 0 && c.h > 0 && c.g > 0 && c.e > 0 && c.f > 0 && c.max_positions > 0;
    good = good && c.h % c.g == 0 && c.e % 2 == 0 && (!c.bos || fits(*c.bos));
    for (const std::int32_t id : c.eos) good = good && fits(id);
    good = good && c.rms_norm_eps >= 0 && c.rope.theta > 0 && std::isfinite(c.rope.theta);
    using finteam::RopeType;
    const bool longrope = c.rope.type == RopeType::longrope;
    if (c.rope.type != RopeType::none && !longrope) good = good && c.rope.factor >= 1;
    const auto half = static_cast<std::size_t>(longrope ? c.rope.width(c.e) / 2 : 0);
    good = good && c.rope.short_factor.size() == half && c.rope.long_factor.size() == half;
    good = good && std::isfinite(c.rope.attention_factor) && c.rope.width(c.e) >= 2 && c.rope.width(c.e) <= c.e;
    const auto by_layer = [&](const auto& of) { return of.empty() || of.size() == static_cast<std::size_t>(c.layers); };
    good = good && by_layer(c.sees_all) && by_layer(c.rotates) && c.window >= 0;
    good = good && std::isfinite(c.embedding_scale) && std::isfinite(c.score_scale) && c.score_cap >= 0 &&
           c.logit_cap >= 0;
    good = good && c.experts >= 1 && c.experts_per_token <= c.experts;
    if (c.rope.type == RopeType::llama3) {
      good = good && c.rope.high_freq_factor > c.rope.low_freq_factor && c.rope.original_max_positions > 0;
    }
    if (!good) __builtin_trap();
  } catch (const finteam::Error& error) {
    if (std::string_view(error.what()).size() > 2000) __builtin_trap();
  }
  return 0;
}
