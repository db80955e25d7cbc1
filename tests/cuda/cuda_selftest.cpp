// cuda_selftest [DEVICE]: the wrappers of what is not C++ on a GPU, before anything that is built of them
// (scripts/gpu_check). Compiled twice: for a GPU, and for the simulator, which tries the program itself.
#include <cstdio>
#include <cstdlib>

#include "tests/cuda/wrapper_checks.h"
#ifdef PKV_SELFTEST_SIMULATED
#include "kernels/cuda/sim/sim_stream.h"
#else
#include "kernels/cuda/cuda_stream.h"
#endif

int main(int count, char** arguments) {
  const int device = count > 1 ? std::atoi(arguments[1]) : 0;
#ifdef PKV_SELFTEST_SIMULATED
  std::printf("a simulated device %d\n", device);
  const auto stream = std::make_shared<pkv::sim::SimStream>(pkv::sim::Options{});
#else
  const auto made = pkv::make_cuda_stream(device);
  if (!made.ok()) {
    std::printf("%s\n", std::string(made.status().message()).c_str());
    return 1;
  }
  const std::shared_ptr<pkv::gpu::Stream>& stream = *made;
  std::printf("%s\n", stream->description().c_str());
#endif
  int wrong = 0;
  for (const pkv::test::WrapperCheck& check : pkv::test::wrapper_checks()) {
    std::string fault = check.run(*stream);
    if (stream->failed()) fault = stream->error();
    std::printf("%-32s %s\n", check.name, fault.empty() ? "ok" : fault.c_str());
    wrong += fault.empty() ? 0 : 1;
  }
  std::printf("%d of %zu wrappers are wrong\n", wrong, pkv::test::wrapper_checks().size());
  return wrong == 0 ? 0 : 1;
}
