// The goldens of tests/goldens: tiny checkpoints and what transformers computes from them.
#pragma once

#include <finteam/file/checkpoint.hpp>
#include <finteam/file/config.hpp>
#include <finteam/file/safetensors.hpp>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace test {

inline std::filesystem::path golden_folder(const std::string& name) {
  return std::filesystem::path(FINTEAM_TEST_DATA) / "goldens" / name;
}

struct Golden {
  explicit Golden(const std::string& name)
      : folder(golden_folder(name)),
        config(finteam::read_config(folder)),
        checkpoint(finteam::Checkpoint::open(folder)),
        expected(finteam::Safetensors::open(folder / "golden.safetensors")) {}

  [[nodiscard]] std::vector<float> floats(const std::string& name) const {
    const finteam::RawTensor raw = expected.tensor(name);
    std::vector<float> x(static_cast<std::size_t>(raw.size()));
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = raw[static_cast<finteam::index_t>(i)];
    return x;
  }
  [[nodiscard]] std::vector<std::int32_t> ids(const std::string& name) const {
    const auto x = floats(name);
    return {x.begin(), x.end()};
  }

  std::filesystem::path folder;
  finteam::Config config;
  finteam::Checkpoint checkpoint;
  finteam::Safetensors expected;
};

}  // namespace test
