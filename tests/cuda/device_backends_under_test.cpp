// Of tests/kernels/backends_under_test.h: both modes of the GPU that PKV_DEVICE names, through the library as the
// server loads it (scripts/gpu_check).
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "tests/kernels/backends_under_test.h"

namespace pkv {

std::vector<BackendUnderTest> backends_under_test(std::initializer_list<int32_t> /*threads*/) {
  const char* device = std::getenv("PKV_DEVICE");
  std::vector<BackendUnderTest> backends;
  for (const bool exact : {true, false}) {
    const BackendOptions options{.device = device == nullptr ? "cuda:0" : device, .exact = exact};
    auto made = make_backend(options);
    if (!made.ok()) {
      std::fprintf(stderr, "%s\n", std::string(made.status().message()).c_str());
      std::exit(1);
    }
    std::printf("%s\n", (*made)->description().c_str());
    backends.push_back({.name = exact ? "exact" : "default", .options = options, .backend = *std::move(made)});
  }
  return backends;
}

}  // namespace pkv
