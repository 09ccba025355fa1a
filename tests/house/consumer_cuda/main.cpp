// Links the kernels with a plain C++ compiler. Where there is no GPU, asking for one is an Error that says so.
#include <finteam/backend/cuda.hpp>
#include <finteam/core/error.hpp>

#include <cstdio>

int main() {
  try {
    const finteam::Cuda cuda;
    std::printf("opened %s\n", cuda.device().c_str());
    return 0;
  } catch (const finteam::Error& e) {
    std::printf("%s\n", e.what());
    const bool clear = e.code() == finteam::Code::system && e.where() == "CUDA" && e.expected() == "device 0";
    return clear && !e.found().empty() ? 0 : 1;
  }
}
