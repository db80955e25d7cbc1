// The default model on the GPU backend in exact mode, against values made independently (full.json) and against the
// reference backend. PKV_GOLDEN_DEVICE names the GPU (scripts/gpu_check); without it, on a simulated device, which has
// time for short prompts.
#include <gtest/gtest.h>

#include <cstdlib>
#include <utility>
#include <vector>

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

// Policies that look at the prompt's attention, in budgets of less than half of it.
std::vector<PolicySpec> selecting_policies() {
  std::vector<PolicySpec> specs;
  const auto add = [&](const char* name, BudgetScope scope) -> PolicySpec& {
    nlohmann::json values{{"policy", name}, {"budget", 44}};
    if (scope == BudgetScope::kTotal) values["interval_tokens"] = 2;
    return specs.emplace_back(golden::policy_of(values));
  };
  for (const char* name : {"snapkv", "pyramidkv", "ada_snapkv"}) add(name, BudgetScope::kPrompt);
  add("funnel", BudgetScope::kPrompt).params.funnel_allocation = FunnelAllocation::kTable;
  add("funnel", BudgetScope::kPrompt).params.funnel_allocation = FunnelAllocation::kGlobal;
  for (const char* name : {"h2o", "snapkv"}) add(name, BudgetScope::kTotal);
  return specs;
}

// The positions that each policy holds at the end, lane by lane: one prompt for all of them, whose layers each policy
// cuts for itself, and some tokens.
std::vector<std::vector<golden::Positions>> held_by_each(const golden::Loaded& loaded) {
  constexpr size_t kPromptTokens = 100;
  std::vector<TokenId> prompt = golden::prompt_tokens("gpl3_text");
  prompt.resize(kPromptTokens);
  auto request = golden::make_request(std::move(prompt), {.kv_dtype = KvDtype::kF32}, 3);
  request->compare_with = selecting_policies();
  request->logprobs = false;
  request->top_logprobs = 0;
  const auto engine = golden::make_engine(loaded, uint64_t{64} << 20);  // what is fenced again and again
  const auto sink = golden::answer(*engine, std::move(request));
  std::vector<std::vector<golden::Positions>> held;
  for (const PolicyComparison& policy : sink->result().comparisons) {
    auto& lanes = held.emplace_back();
    for (const LayerOutcome& layer : policy.cache.layers) {
      lanes.insert(lanes.end(), layer.final_positions.begin(), layer.final_positions.end());
    }
  }
  return held;
}

TEST(CudaGolden, SelectionsInExactModeAreThoseOfTheReferenceBackend) {
  const std::vector<std::vector<golden::Positions>> expected = held_by_each(golden::load({.device = "reference"}));
  const std::vector<std::vector<golden::Positions>> held = held_by_each(load());
  const std::vector<PolicySpec> specs = selecting_policies();
  ASSERT_EQ(expected.size(), specs.size());
  ASSERT_EQ(held.size(), specs.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    ASSERT_EQ(held[i].size(), expected[i].size());
    ASSERT_FALSE(held[i].empty());
    for (size_t lane = 0; lane < held[i].size(); ++lane) {
      EXPECT_EQ(held[i][lane], expected[i][lane]) << "policy " << i << ", lane " << lane << " of all layers";
    }
  }
}

}  // namespace
}  // namespace pkv
