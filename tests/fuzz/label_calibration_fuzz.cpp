// libFuzzer: any bytes are a LabelCalibration that a task of its labels can use, or an Error.
// clang++ -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -Iinclude tests/fuzz/label_calibration_fuzz.cpp &&
// ./a.out -max_total_time=60 tests/refused
#include <finteam/team/label_calibration.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const finteam::JsonFile file(text, "calibration.json", {.depth = 64, .values = 100'000});
    const finteam::LabelCalibration c = finteam::read_label_calibration(file.root());
    const std::size_t labels = c.prior_then.empty() ? 3 : c.prior_then.size();
    c.validate(labels, "task");  // what the file may say is what a task may have
    std::vector<double> p(labels, 0.0);
    p[0] = 1;
    c.apply(p);
    std::vector<finteam::index_t> set;
    c.choose_set(p, set);
    bool good = set.size() <= labels && p[0] > 0;
    for (const double x : p) good = good && std::isfinite(x);
    if (!good) __builtin_trap();
  } catch (const finteam::Error& error) {
    if (error.code() == finteam::Code::invalid_argument) __builtin_trap();
    if (std::string_view(error.what()).size() > 2000) __builtin_trap();
  }
  return 0;
}
