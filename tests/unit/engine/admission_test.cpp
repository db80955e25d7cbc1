// Estimates: what Engine::check() says before anything is submitted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
  absl::StatusOr<Admission> check(const PolicySpec& spec, int32_t prompt_tokens, int32_t max_tokens) const {
    return engine_->check({.policy = spec, .prompt_tokens = prompt_tokens, .max_tokens = max_tokens});
  }
  TinyModel tiny_ = make_tiny_model();
  std::unique_ptr<Engine> engine_;
};

TEST_F(AdmissionCheck, FiguresOfAFullCache) {
  const Admission admission = *check(policy(PolicyKind::kFull), 100, 5);
  EXPECT_TRUE(admission.admissible_ever);
  EXPECT_EQ(admission.budget_tokens, 100);
  EXPECT_EQ(admission.full_bytes, 104u * 3 * 2 * 64);
  // 13 pages a lane hold 104 entries; each has 8 positions and an entry in the table beside it.
  EXPECT_EQ(admission.steady_bytes, 6u * 13 * (512 + 8 * 4 + 4));
  EXPECT_EQ(admission.peak_bytes, admission.steady_bytes);
  EXPECT_EQ(admission.pool_bytes, 200u * 512);
  EXPECT_EQ(admission.workspace_bytes, 100u * 64 * sizeof(float));
  EXPECT_EQ(admission.workspace_limit_bytes, engine_->options().workspace_bytes);
  EXPECT_EQ(admission.smallest_budget_tokens, 0);
  EXPECT_EQ(admission.largest_budget_tokens, 0);
}

TEST_F(AdmissionCheck, ObservedQueriesCountAsWorkspace) {
  const Admission admission = *check(policy(PolicyKind::kSnapKv, 20), 100, 5);
  EXPECT_EQ(admission.workspace_bytes, (100u * 64 + 8 * (4 * 16 + 4)) * sizeof(float));
  // Two layers cut to 3 pages a lane, the third whole with 13.
  EXPECT_EQ(admission.peak_bytes, 2u * (3 + 3 + 13) * (512 + 36));
  EXPECT_EQ(admission.smallest_budget_tokens, 9);
  EXPECT_TRUE(admission.admissible_now);
}

TEST_F(AdmissionCheck, NamesTheLargestBudgetThatFits) {
  // Prompts of 400: a whole layer has 100 pages, which leaves 100 for two layers of two lanes: 25 pages, 200 entries.
  // With 9 further tokens 26 pages would be needed in each of six lanes: at most 200 / 6 = 33 pages, so the peak
  // decides.
  for (const int64_t asked : {390, 201}) {
    const Admission admission = *check(policy(PolicyKind::kSnapKv, asked), 400, 10);
    EXPECT_FALSE(admission.admissible_ever);
    EXPECT_EQ(admission.largest_budget_tokens, 200);
  }
  EXPECT_TRUE(check(policy(PolicyKind::kSnapKv, 200), 400, 10)->admissible_ever);
  // One layer alone is more than the pool.
  EXPECT_EQ(check(policy(PolicyKind::kSnapKv, 20), 808, 10)->largest_budget_tokens, 0);
}

TEST_F(AdmissionCheck, RefusesLengthsAndPolicies) {
  EXPECT_EQ(check(policy(PolicyKind::kFull), 1000, 25).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(check(policy(PolicyKind::kFull), 1000, 24).ok());
  EXPECT_EQ(check(policy(PolicyKind::kFull), 0, 5).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(check(policy(PolicyKind::kSnapKv, 8), 100, 5).status().code(), absl::StatusCode::kInvalidArgument);
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
