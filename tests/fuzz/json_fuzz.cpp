// libFuzzer: any bytes are JSON, or an Error; what is JSON is JSON again after it was written.
// clang++ -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -Iinclude tests/fuzz/json_fuzz.cpp && ./a.out
// -max_total_time=60 tests/refused
#include <finteam/file/json_view.hpp>

#include <cstddef>
#include <cstdint>

namespace {

void read(const finteam::JsonView& view) {
  (void)finteam::detail::describe(view.json());
  if (view.is_object()) {
    view.each_member([](std::string_view, const finteam::JsonView& member) { read(member); });
  } else if (view.is_array()) {
    view.each([](const finteam::JsonView& element) { read(element); });
  } else {
    try {
      (void)view.as_int(-1000, 1000);
    } catch (const finteam::Error&) {
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const finteam::JsonLimits limits{.depth = 64, .values = 100'000};
    const finteam::JsonFile file(text, "fuzz.json", limits);
    read(file.root());
    const std::string again = file.root().json().dump();
    if (finteam::parse_json(again, "again", limits) != file.root().json()) __builtin_trap();
  } catch (const finteam::Error& error) {
    if (std::string_view(error.what()).size() > 2000) __builtin_trap();
  }
  return 0;
}
