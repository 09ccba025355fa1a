// What the real finteam::cuda says on a machine without a GPU, where it is linked all the same.
#include <finteam/backend/cuda.hpp>

#include "catch.hpp"

using namespace finteam;

TEST_CASE("on a machine without a GPU, a Cuda is refused with an error that says what is missing", "[cuda][law4]") {
  int devices = 0;
  if (detail::cuda::count_devices(devices).ok() && devices > 0) {
    WARN("skipped: this machine has a GPU");
    return;
  }
  try {
    const Cuda cuda;
    FAIL("opened");
  } catch (const Error& e) {
    REQUIRE(e.code() == Code::system);
    REQUIRE(e.where() == "CUDA");
    REQUIRE(e.expected() == "device 0");
    REQUIRE_FALSE(e.found().empty());
  }
}
