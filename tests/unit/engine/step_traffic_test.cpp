// What a prompt and a decode step move between host and backend, whatever their policies. A step sends one commit, with
// one more where scores were made anew for it, and reads its output. A prompt reads once: the first token's ranking,
// and with it the recalls of all policies in it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/reference/reference_backend.h"
#include "server/policy/registry.h"
#include "tests/support/counting_backend.h"
#include "tests/unit/engine/engine_fixture.h"

namespace pkv::test {
namespace {

class StepTrafficTest : public testing::Test {
 protected:
  StepTrafficTest() {
    auto counting = std::make_unique<CountingBackend>(make_reference_backend());
    backend_ = counting.get();
    tiny_ = make_tiny_model(std::move(counting));
    engine_ = make_engine(*tiny_.model, small_options());
  }

  // Runs the request by itself. What its prompt fetched at most, what every decode step did, and what that sent.
  void expect_one_fetch_a_step(const std::shared_ptr<Request>& request, int64_t fetches_of_prompt = 1) {
    const int64_t fetches_before = backend_->count("fetch");
    std::vector<CountingBackend::Counts> at_token;  // the first comes from the prompt, each other from a step
    auto sink = std::make_shared<RecordingSink>();
    sink->at_token = [&](int32_t) {
      at_token.push_back(backend_->counts());
      return true;
    };
    submit(*engine_, request, sink)->wait();
    ASSERT_EQ(sink->status, absl::OkStatus());
    ASSERT_GT(at_token.size(), 10u);
    ASSERT_GE(at_token[0]["fetch"] - fetches_before, 1);
    ASSERT_LE(at_token[0]["fetch"] - fetches_before, fetches_of_prompt);
    for (size_t step = 1; step < at_token.size(); ++step) {
      const auto during = [&](const char* operation) {
        return at_token[step][operation] - at_token[step - 1][operation];
      };
      ASSERT_EQ(during("fetch"), 1) << "step " << step;
      ASSERT_EQ(during("upload"), 0) << "step " << step;
      // Before it lanes may be scored anew, in units of some layers or some of a layer's rows.
      const int64_t scored_layers = during("order_entries");
      ASSERT_GE(during("commit"), scored_layers > 0 ? 2 : 1) << "step " << step;
      ASSERT_LE(during("commit"), 1 + 3 * scored_layers) << "step " << step;
    }
  }

  CountingBackend* backend_ = nullptr;
  TinyModel tiny_;
  std::unique_ptr<Engine> engine_;
};

PolicySpec spec_of(const PolicyRow& row, BudgetScope scope, int64_t tokens) {
  PolicySpec spec = policy(row.kind, row.takes_budget ? tokens : 0);
  if (row.takes_budget) spec.budget.scope = scope;
  spec.budget.interval_tokens = 7;  // full lanes, and growing ones, are scored anew on the way
  return spec;
}

// But for lanes that share a layer's budget: what each gets is known when the layer has been scored.
TEST_F(StepTrafficTest, IsOneFetchWhateverThePolicy) {
  for (const PolicyRow& row : policy_table()) {
    for (const BudgetScope scope : {BudgetScope::kPrompt, BudgetScope::kTotal}) {
      for (const int64_t tokens : {40, 70}) {  // below the prompt, and reached by the answer
        SCOPED_TRACE(testing::Message() << row.name << (scope == BudgetScope::kTotal ? " TOTAL " : " PROMPT ")
                                        << tokens);
        const PolicySpec spec = spec_of(row, scope, tokens);
        const ModelShape& shape = tiny_.model->shape();
        const std::unique_ptr<CachePolicy> made = *make_policy(spec);
        const bool shares = !made->layer_totals(40, 60, {shape.layers, shape.kv_heads}).empty();
        expect_one_fetch_a_step(make_request(random_prompt(60, 3), 30, spec), shares ? 1 + shape.layers : 1);
      }
    }
  }
}

TEST_F(StepTrafficTest, IsOneFetchWherePositionsAreRelativeToTheCache) {
  PolicySpec spec = policy(PolicyKind::kStreamingLlm, 40);
  spec.budget.scope = BudgetScope::kTotal;
  spec.params.position_mode = PositionMode::kCacheRelative;
  expect_one_fetch_a_step(make_request(random_prompt(60, 3), 30, spec));
}

TEST_F(StepTrafficTest, IsOneFetchWhateverIsWantedOfTheLogits) {
  auto request = make_request(random_prompt(60, 3), 30);
  request->sampling.min_tokens = 5;
  request->sampling.repetition_penalty = 1.2f;
  request->sampling.frequency_penalty = 0.5f;
  request->sampling.logit_bias = {{4, 1.0f}};
  request->logprobs = true;
  request->top_logprobs = 5;
  expect_one_fetch_a_step(request);
}

TEST_F(StepTrafficTest, IsAFetchALayerMoreWhereScoresDecideTheCounts) {
  PolicySpec spec = policy(PolicyKind::kSnapKv, 0);
  spec.budget = {.kind = BudgetKind::kMinRecall, .min_recall_millionths = 600'000};
  expect_one_fetch_a_step(make_request(random_prompt(60, 3), 30, spec), 1 + tiny_.model->shape().layers);
}

TEST_F(StepTrafficTest, IsOneFetchOfAPromptWithoutAnAnswer) {
  const int64_t fetches_before = backend_->count("fetch");
  auto sink = std::make_shared<RecordingSink>();
  submit(*engine_, make_request(random_prompt(60, 3), 0, policy(PolicyKind::kSnapKv, 40)), sink)->wait();
  ASSERT_EQ(sink->status, absl::OkStatus());
  EXPECT_EQ(backend_->count("fetch") - fetches_before, 1);
}

TEST_F(StepTrafficTest, IsOneFetchForAComparisonOfEverything) {
  auto request = make_request(random_prompt(60, 3), 30);
  for (const PolicyRow& row : policy_table()) {
    if (!row.takes_budget || request->compare_with.size() == 7) continue;
    request->compare_with.push_back(spec_of(row, BudgetScope::kTotal, 40));
  }
  expect_one_fetch_a_step(request);
}

}  // namespace
}  // namespace pkv::test
