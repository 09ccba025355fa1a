// Uses a word of the library and links what it depends on.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <finteam/core/error.hpp>
#include <finteam/core/tensor.hpp>

#include <pcre2.h>
#include <utf8proc.h>

#include <Eigen/Core>

#include <cstdio>
#include <cstring>
#include <nlohmann/json_fwd.hpp>

#if !__has_include(<xsimd/xsimd.hpp>)
#error "xsimd is not on the include path"
#endif

int main() {
  const finteam::Error error(finteam::Code::mismatch, "consumer", "a", "b");
  char version[64];
  if (pcre2_config_8(PCRE2_CONFIG_VERSION, nullptr) > 64 || pcre2_config_8(PCRE2_CONFIG_VERSION, version) < 0) return 1;
  std::printf("finteam %d.%d, PCRE2 %s, utf8proc %s: %s\n", FINTEAM_VERSION_MAJOR, FINTEAM_VERSION_MINOR, version,
              utf8proc_version(), error.what());
  return std::strcmp(error.what(), "consumer: expected a, found b");
}
