// The default model on the GPU backend in exact mode, against values made independently (full.json). PKV_GOLDEN_DEVICE
// names the GPU (scripts/gpu_check); without it, on a simulated device, which has time for the shortest prompt.
#include <gtest/gtest.h>

#include <cstdlib>

#include "kernels/cuda/sim/sim_backend.h"
#include "tests/golden/model/golden_support.h"

namespace pkv {
namespace {

const char* gpu() { return std::getenv("PKV_GOLDEN_DEVICE"); }

golden::Loaded load() {
  if (gpu() != nullptr) return golden::load({.device = gpu(), .exact = true});
  return golden::load(std::move(sim::make_sim_backend({.order = sim::Order::kShuffled})->backend));
}

TEST(CudaGolden, ShortChatInExactMode) {
  const golden::Loaded loaded = load();
  golden::check_full(loaded, "short_chat");
  EXPECT_TRUE(loaded.backend->status().ok()) << loaded.backend->status();
}

TEST(CudaGolden, LongerPromptsOnAGpu) {
  if (gpu() == nullptr) GTEST_SKIP() << "minutes on a simulated device";
  const golden::Loaded loaded = load();
  for (const char* name : {"needles_chat", "gpl3_text", "gpl2_chat", "lgpl_long"}) golden::check_full(loaded, name);
  EXPECT_TRUE(loaded.backend->status().ok()) << loaded.backend->status();
}

}  // namespace
}  // namespace pkv
