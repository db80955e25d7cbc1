// Chooses by the environment.
#include "tests/support/tested_backend.h"

#include <cstdlib>
#include <string_view>

#include "kernels/check.h"
#include "kernels/reference/reference_backend.h"
#include "tests/support/fenced_backend.h"

namespace pkv::test {

std::unique_ptr<Backend> make_tested_backend() {
  const char* wanted = std::getenv("PKV_TEST_BACKEND");
  if (wanted == nullptr) return make_reference_backend();
  PKV_CHECK(std::string_view(wanted) == "fenced", "PKV_TEST_BACKEND is 'fenced' or not set");
  return std::make_unique<FencedBackend>();
}

}  // namespace pkv::test
