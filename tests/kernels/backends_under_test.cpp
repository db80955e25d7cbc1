// See backends_under_test.h.
#include "tests/kernels/backends_under_test.h"

#include <cstdio>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace pkv {
namespace {

struct Path {
  const char* device;
  const char* isa;
  bool exact = true;  // false: in the exact mode the same kernels as the path above it in the list
};

constexpr Path kPaths[] = {
    {"cpu", "scalar"},
    {"cpu", "avx2"},
    {"cpu", "avx512"},
    {"cpu", "avx512_vnni", false},
    {"cpu", "avx512_bf16", false},
    {"cpu", "amx_bf16", false},
};

}  // namespace

std::vector<BackendUnderTest> backends_under_test(std::initializer_list<int32_t> threads) {
  std::vector<BackendUnderTest> backends;
  for (const Path& path : kPaths) {
    for (bool exact : {true, false}) {
      if (exact && !path.exact) continue;
      for (int32_t count : threads) {
        const BackendOptions options{
            .device = path.device, .exact = exact, .fast = !exact, .threads = count, .isa = path.isa};
        const std::string name =
            absl::StrCat(path.device, "/", path.isa, exact ? "/exact/" : "/default/", count, "_threads");
        auto backend = make_backend(options);
        if (backend.ok()) {
          std::printf("runs: %s: %s\n", name.c_str(), (*backend)->description().c_str());
          backends.push_back({name, options, *std::move(backend)});
          continue;
        }
        std::printf("does not run here: %s: %s\n", name.c_str(), backend.status().ToString().c_str());
        PKV_CHECK(backend.status().code() == absl::StatusCode::kFailedPrecondition,
                  "make_backend refused a known path");
      }
    }
  }
  return backends;
}

}  // namespace pkv
