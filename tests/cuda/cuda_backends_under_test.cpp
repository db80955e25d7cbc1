// Of tests/kernels/backends_under_test.h: the GPU backend on simulated devices, whose threads and blocks take their
// turns in different orders. An order is to it what a number of threads is to the CPU: the bits are the same.
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/cuda/sim/sim_backend.h"
#include "tests/kernels/backends_under_test.h"

namespace pkv {

std::vector<BackendUnderTest> backends_under_test(std::initializer_list<int32_t> threads) {
  const std::pair<const char*, sim::Options> kDevices[] = {
      {"shuffled", {.order = sim::Order::kShuffled, .shared_bytes = sim::kSharedBytesSm80}},
      {"backward", {.order = sim::Order::kBackward}},
  };
  // CudaBackend asks for its mode in these alone.
  const std::vector<std::string> kAll, kOwn = {"linear", "attend", "row_lse", "column_mass", "observe_select"};
  PKV_CHECK(threads.size() <= std::size(kDevices), "orders of a simulated device");
  std::vector<BackendUnderTest> backends;
  for (const bool exact : {true, false}) {
    for (size_t i = 0; i < threads.size(); ++i) {
      const auto& [order, options] = kDevices[i];
      backends.push_back({.name = absl::StrCat("cuda/", exact ? "exact/" : "default/", order),
                          .options = {.device = "cuda", .exact = exact},
                          .backend = std::move(sim::make_sim_backend(options, exact)->backend),
                          .own_operations = exact ? kAll : kOwn});
    }
  }
  return backends;
}

}  // namespace pkv
