// libFuzzer: any bytes are a Manifest that keeps its promises and stays in its folder, or an Error.
// clang++ -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -Iinclude tests/fuzz/manifest_fuzz.cpp && ./a.out
// -max_total_time=60 tests/refused
#include <finteam/team/manifest.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <set>

namespace {
using namespace finteam;

/// A path that is not there, or one below its folder.
bool inside(const std::string& path) {
  if (path.empty()) return true;
  const std::string whole = (std::filesystem::path("/team") / path).lexically_normal().string();
  return whole.find('\0') == std::string::npos && (whole + "/").starts_with("/team/");
}

bool good_gate(const GateSettings& gate, std::size_t roles, bool has_base) {
  bool good = gate.of < roles + (has_base ? 1 : 0) && (gate.prior.empty() || gate.prior.size() == roles);
  for (const double p : gate.prior) good = good && p > 0 && std::isfinite(p);
  good = good && gate.is_linear() == !gate.file.empty() && inside(gate.file);
  good = good && gate.rule.top_k >= 1 && gate.rule.top_k <= static_cast<index_t>(roles);
  good = good && gate.rule.temperature > 0 && std::isfinite(gate.rule.temperature);
  return good && gate.rule.floor >= 0 && gate.rule.floor * static_cast<double>(roles) <= 1;
}

bool good_manifest(const Manifest& m) {
  bool good = !m.roles.empty() && m.roles.size() <= 64 && inside(m.base) && inside(m.merged) && inside(m.tokenizer);
  std::set<std::string> names;
  for (const auto& role : m.roles) good = good && !role.path.empty() && inside(role.path);
  for (const auto& role : m.roles) good = good && !role.name.empty() && names.insert(role.name).second;
  good = good && (m.gate || m.roles.size() == 1 || !m.merged.empty()) && (m.base.empty() || m.merged.empty());
  if (m.gate) good = good && good_gate(*m.gate, m.roles.size(), !m.base.empty());
  for (const auto& [name, task] : m.tasks) detail::check_task(task, name);  // what the file may say can be asked
  for (const auto& [name, path] : m.calibrations) good = good && m.tasks.contains(name) && inside(path);
  return good && m.lanes() >= 1;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const JsonFile file(text, "team.json", Manifest::limits);
    const Manifest m = read_manifest(file.root());
    try {
      if (!good_manifest(m)) __builtin_trap();
    } catch (const Error&) {
      __builtin_trap();
    }
  } catch (const Error& error) {
    if (std::string_view(error.what()).size() > 2000) __builtin_trap();
  }
  return 0;
}
