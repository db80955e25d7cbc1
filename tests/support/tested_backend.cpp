// Chooses by the environment.
#include "tests/support/tested_backend.h"

#include <cstdlib>
#include <string_view>
#include <utility>

#include "kernels/check.h"
#include "kernels/cuda/sim/sim_backend.h"
#include "kernels/reference/reference_backend.h"
#include "tests/support/fenced_backend.h"

namespace pkv::test {

std::unique_ptr<Backend> make_tested_backend() {
  const char* wanted = std::getenv("PKV_TEST_BACKEND");
  if (wanted == nullptr) return make_reference_backend();
  if (std::string_view(wanted) == "fenced") return std::make_unique<FencedBackend>();
  PKV_CHECK(std::string_view(wanted) == "cuda", "PKV_TEST_BACKEND is 'fenced' or 'cuda' or not set");
  return std::move(sim::make_sim_backend({.order = sim::Order::kShuffled})->backend);
}

}  // namespace pkv::test
