// Contracts: what Engine::estimate() says before anything is submitted, and what can never be kept.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/policy/compressor_scratch.h"
#include "tests/unit/engine/engine_fixture.h"

namespace pkv::test {
namespace {

class AdmissionCheck : public testing::Test {
 protected:
  AdmissionCheck() {
    EngineOptions options = small_options();
    options.pool_bytes = 200 * 512;  // pages of 8 slots
    engine_ = make_engine(*tiny_.model, options);
  }
  absl::StatusOr<Contract> estimate(const PolicySpec& spec, int32_t prompt_tokens, int32_t max_tokens) const {
    return engine_->estimate({.policy = spec, .prompt_tokens = prompt_tokens, .max_tokens = max_tokens});
  }
  TinyModel tiny_ = make_tiny_model();
  std::unique_ptr<Engine> engine_;
};

TEST_F(AdmissionCheck, FiguresOfAFullCache) {
  const Contract contract = *estimate(policy(PolicyKind::kFull), 100, 5);
  EXPECT_FALSE(contract.refusal);
  EXPECT_EQ(contract.own.plan.budget_tokens, 100);
  EXPECT_EQ(contract.full_bytes, 104u * 3 * 2 * 64);
  // 13 pages a lane hold 104 entries; each has 8 positions and an entry in the table beside it.
  EXPECT_EQ(contract.steady_bytes, 6u * 13 * (512 + 8 * 4 + 4));
  EXPECT_EQ(contract.peak_bytes, contract.steady_bytes);
  EXPECT_EQ(contract.cost.workspace_bytes, 100u * 64 * sizeof(float));
  EXPECT_EQ(contract.cost.state_bytes, 0u);
  EXPECT_EQ(contract.own.plan.smallest_budget_tokens, 0);
}

TEST_F(AdmissionCheck, ObservedQueriesCountAsWorkspace) {
  const Contract contract = *estimate(policy(PolicyKind::kSnapKv, 20), 100, 5);
  // The residual stream; queries and log-sum-exps of eight rows; a recall for each lane; what layers are scored in.
  EXPECT_EQ(contract.cost.workspace_bytes,
            (100u * 64 + 8 * (4 * 16 + 4)) * sizeof(float) + 6 * sizeof(double) +
                CompressorScratch::bytes(4, {.layers = 3, .kv_heads = 2, .head_dim = 16}, 100));
  // Two layers cut to 3 pages a lane, the third whole with 13.
  EXPECT_EQ(contract.peak_bytes, 2u * (3 + 3 + 13) * (512 + 36));
  EXPECT_EQ(contract.own.plan.smallest_budget_tokens, 9);
  EXPECT_TRUE(engine_->has_room(contract));
}

TEST_F(AdmissionCheck, NamesTheLargestBudgetThatFits) {
  // Prompts of 400: a whole layer has 100 pages, which leaves 100 for two layers of two lanes: 25 pages, 200 entries.
  // With 9 further tokens 26 pages would be needed in each of six lanes: at most 200 / 6 = 33 pages, so the peak
  // decides.
  for (const int64_t asked : {390, 201}) {
    const Contract contract = *estimate(policy(PolicyKind::kSnapKv, asked), 400, 10);
    ASSERT_TRUE(contract.refusal);
    EXPECT_EQ(contract.refusal->reason, Refusal::Reason::kPool);
    EXPECT_EQ(contract.refusal->largest_budget_tokens, 200u);
    EXPECT_EQ(contract.refusal->pool_bytes, 200u * 512);
    EXPECT_EQ(contract.refusal->workspace_limit_bytes, engine_->options().workspace_bytes);
    EXPECT_FALSE(engine_->has_room(contract));
  }
  EXPECT_FALSE(estimate(policy(PolicyKind::kSnapKv, 200), 400, 10)->refusal);
  // One layer alone is more than the pool.
  EXPECT_EQ(estimate(policy(PolicyKind::kSnapKv, 20), 808, 10)->refusal->largest_budget_tokens, 0u);
}

TEST_F(AdmissionCheck, RefusesLengthsAndPolicies) {
  EXPECT_EQ(estimate(policy(PolicyKind::kFull), 1000, 25).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(estimate(policy(PolicyKind::kFull), 1000, 24).ok());
  EXPECT_EQ(estimate(policy(PolicyKind::kFull), 0, 5).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(estimate(policy(PolicyKind::kSnapKv, 8), 100, 5).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Refusals, TravelInStatuses) {
  const Refusal refusal{.reason = Refusal::Reason::kWorkspace,
                        .peak_bytes = uint64_t{1} << 40,
                        .pool_bytes = 2,
                        .workspace_bytes = 3,
                        .state_bytes = 4,
                        .workspace_limit_bytes = 5,
                        .smallest_budget_tokens = 6,
                        .smallest_budget_bytes = 7,
                        .largest_budget_tokens = 8};
  const absl::Status status = refused(refusal);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  const std::optional<Refusal> read = refusal_of(status);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->reason, refusal.reason);
  EXPECT_EQ(read->peak_bytes, refusal.peak_bytes);
  EXPECT_EQ(read->pool_bytes, 2u);
  EXPECT_EQ(read->workspace_bytes, 3u);
  EXPECT_EQ(read->state_bytes, 4u);
  EXPECT_EQ(read->workspace_limit_bytes, 5u);
  EXPECT_EQ(read->smallest_budget_tokens, 6u);
  EXPECT_EQ(read->smallest_budget_bytes, 7u);
  EXPECT_EQ(read->largest_budget_tokens, 8u);
  EXPECT_EQ(refused({.reason = Refusal::Reason::kLength}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(refusal_of(absl::FailedPreconditionError("refused: pool")));
}

TEST(EngineOptionsCheck, NamesWhatIsOutOfRange) {
  const TinyModel tiny = make_tiny_model();
  EngineOptions options = small_options();
  options.max_running = 0;
  const auto engine = Engine::create(*tiny.model, options);
  EXPECT_EQ(engine.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(engine.status().message()), testing::HasSubstr("max_running"));
}

}  // namespace
}  // namespace pkv::test
