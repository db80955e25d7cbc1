// Comparisons: several policies on one prompt, each beside the baseline's answer and on its own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "server/policy/recall_shortfall.h"
#include "server/policy/registry.h"
#include "tests/support/forwarding_backend.h"
#include "tests/unit/engine/engine_fixture.h"

namespace pkv::test {
namespace {

constexpr int32_t kVocabulary = 320;  // of the tiny model

PolicySpec total(PolicyKind kind, int64_t budget) {
  PolicySpec spec = policy(kind, budget);
  spec.budget.scope = BudgetScope::kTotal;
  spec.budget.interval_tokens = 8;
  return spec;
}

std::vector<PolicySpec> rivals() {
  PolicySpec relative = total(PolicyKind::kStreamingLlm, 30);
  relative.params.position_mode = PositionMode::kCacheRelative;
  std::vector<PolicySpec> specs = {policy(PolicyKind::kFull),        policy(PolicyKind::kPyramidKv, 24),
                                   total(PolicyKind::kSnapKv, 24),   total(PolicyKind::kH2o, 20),
                                   total(PolicyKind::kKeyDiff, 32),  relative,
                                   policy(PolicyKind::kRandom, 130), total(PolicyKind::kTova, 16)};
  // In another format of entries, of which a prompt is read with the same.
  for (PolicySpec spec : {policy(PolicyKind::kFull), policy(PolicyKind::kSnapKv, 50), total(PolicyKind::kH2o, 24)}) {
    spec.kv_dtype = KvDtype::kK8V4;
    specs.push_back(spec);
  }
  return specs;
}

std::shared_ptr<Request> comparison(const PolicySpec& baseline, std::vector<PolicySpec> others, int32_t max_tokens) {
  auto request = make_request(random_prompt(120, 3), max_tokens, baseline);
  request->compare_with = std::move(others);
  return request;
}

// Keeps every row of logits that a token was chosen of.
class LogitsTap final : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  void sample_rows(const SampleArgs& args) override {
    for (int64_t row = 0; row < args.logits.rows; ++row) {
      logits.emplace_back(static_cast<size_t>(args.logits.cols));
      inner().fetch({logits.back().data(), args.logits.slice_rows(row, 1)});
    }
    ForwardingBackend::sample_rows(args);
  }
  std::vector<std::vector<float>> logits;
};

class EngineComparison : public testing::TestWithParam<BackendOptions> {
 protected:
  EngineComparison() {
    auto tap = std::make_unique<LogitsTap>(*make_backend(GetParam()));
    backend_ = tap.get();
    tiny_ = make_tiny_model(std::move(tap), WeightType::kQ4_1);
    engine_ = make_engine(*tiny_.model, watched_options());
  }

  LogitsTap* backend_ = nullptr;
  TinyModel tiny_;
  std::unique_ptr<Engine> engine_;
};

TEST_P(EngineComparison, APolicyHeldAgainstItselfDivergesNowhere) {
  for (const PolicySpec& spec : rivals()) {
    const auto sink = run(*engine_, comparison(spec, {spec, spec}, 30));
    ASSERT_EQ(sink->status, absl::OkStatus());
    ASSERT_EQ(sink->result->comparisons.size(), 2u);
    for (const PolicyComparison& same : sink->result->comparisons) {
      EXPECT_THAT(same.kl, testing::AllOf(testing::SizeIs(30), testing::Each(0)));
      EXPECT_EQ(same.kl_mean, 0);
      EXPECT_EQ(same.top1_agreement, 1);
      EXPECT_EQ(same.first_divergence, -1);
      EXPECT_EQ(same.tokens, sink->ids());
      EXPECT_EQ(same.cache.bytes.held, sink->result->cache.bytes.held);
      EXPECT_EQ(same.cache.bytes.allocated, sink->result->cache.bytes.allocated);
      EXPECT_EQ(same.cache.bytes.auxiliary, sink->result->cache.bytes.auxiliary);
      EXPECT_EQ(same.cache.evicted_entries, sink->result->cache.evicted_entries);
    }
  }
}

TEST_P(EngineComparison, EveryAnswerIsThatOfThePolicyAlone) {
  auto request = comparison(policy(PolicyKind::kFull), rivals(), 40);
  request->record_positions = true;
  const auto compared = run(*engine_, request);
  ASSERT_EQ(compared->status, absl::OkStatus());
  EXPECT_EQ(compared->ids(), run(*engine_, make_request(request->prompt, 40))->ids());
  for (size_t i = 0; i < request->compare_with.size(); ++i) {
    SCOPED_TRACE(std::string(policy_row(request->compare_with[i].kind).name));
    auto single = make_request(request->prompt, 40, request->compare_with[i]);
    single->record_positions = true;
    const auto alone = run(*engine_, single);
    const PolicyComparison& rival = compared->result->comparisons[i];
    const CacheReport &cache = rival.cache, &expected = alone->result->cache;
    EXPECT_EQ(rival.tokens, alone->ids());
    EXPECT_EQ(cache.bytes.held, expected.bytes.held);
    EXPECT_EQ(cache.bytes.allocated, expected.bytes.allocated);
    EXPECT_EQ(cache.bytes.auxiliary, expected.bytes.auxiliary);
    EXPECT_LE(cache.bytes.peak, expected.bytes.peak);  // it never held a whole layer
    EXPECT_EQ(cache.budget_tokens, expected.budget_tokens);
    EXPECT_EQ(cache.evicted_entries, expected.evicted_entries);
    ASSERT_EQ(cache.layers.size(), expected.layers.size());
    for (size_t layer = 0; layer < cache.layers.size(); ++layer) {
      // In other chunks of rows, of each of which the reference backend rounds its sums once.
      EXPECT_THAT(cache.layers[layer].recall,
                  testing::Pointwise(testing::DoubleNear(1e-6), expected.layers[layer].recall));
      EXPECT_EQ(cache.layers[layer].kept_positions, expected.layers[layer].kept_positions);
      EXPECT_EQ(cache.layers[layer].final_positions, expected.layers[layer].final_positions);
    }
    const auto [mine, theirs] = std::mismatch(rival.tokens.begin(), rival.tokens.end(), compared->ids().begin());
    const auto first = mine == rival.tokens.end() ? -1 : static_cast<int32_t>(mine - rival.tokens.begin());
    (void)theirs;
    EXPECT_EQ(rival.first_divergence, first);
    EXPECT_NE(rival.first_divergence, 0);  // the first token follows from the whole prompt
  }
  EXPECT_EQ(engine_->stats()->live_bytes, 0u);
}

// Given what the baseline would have said anyway, a continuation changes nothing but what is averaged.
TEST_P(EngineComparison, AContinuationIsWhatAnswersBeginWith) {
  auto request = comparison(policy(PolicyKind::kFull), rivals(), 40);
  const auto chosen = run(*engine_, request);
  ASSERT_EQ(chosen->status, absl::OkStatus());
  constexpr int32_t kGiven = 8;
  request = comparison(policy(PolicyKind::kFull), rivals(), 40);
  const std::vector<TokenId> answer = chosen->ids();
  request->continuation.assign(answer.begin(), answer.begin() + kGiven);
  request->end_tokens = {request->continuation[2]};  // ends no answer as long as it was given
  const auto given = run(*engine_, request);
  ASSERT_EQ(given->status, absl::OkStatus());
  ASSERT_GT(given->ids().size(), kGiven);
  for (size_t i = 0; i < request->compare_with.size(); ++i) {
    const PolicyComparison &with = given->result->comparisons[i], &without = chosen->result->comparisons[i];
    EXPECT_THAT(std::span(with.tokens).first(kGiven), testing::ElementsAreArray(request->continuation));
    ASSERT_EQ(with.kl.size(), given->ids().size());
    EXPECT_TRUE(std::equal(with.kl.begin(), with.kl.end(), without.kl.begin()));
    double sum = 0;
    for (size_t place = kGiven; place < with.kl.size(); ++place) sum += with.kl[place];
    EXPECT_DOUBLE_EQ(with.kl_mean, sum / static_cast<double>(with.kl.size() - kGiven));
  }
}

TEST_P(EngineComparison, AContinuationOfOtherTokensIsFollowedByAll) {
  auto request = comparison(policy(PolicyKind::kFull), rivals(), 20);
  request->continuation = random_prompt(20, 9);
  const auto sink = run(*engine_, request);
  ASSERT_EQ(sink->status, absl::OkStatus());
  EXPECT_EQ(sink->ids(), request->continuation);
  for (const PolicyComparison& rival : sink->result->comparisons) {
    EXPECT_EQ(rival.tokens, request->continuation);
    EXPECT_EQ(rival.kl_mean, 0);
    EXPECT_EQ(rival.top1_agreement, 1);
    EXPECT_EQ(rival.first_divergence, -1);
  }
}

// Natural-log probabilities of the whole vocabulary at every place of the answer that was given last.
std::vector<std::vector<double>> distributions(const std::vector<std::vector<float>>& logits) {
  std::vector<std::vector<double>> places;
  for (const std::vector<float>& row : logits) {
    double sum = 0;
    for (const float logit : row) sum += std::exp(static_cast<double>(logit));
    std::vector<double>& place = places.emplace_back();
    for (const float logit : row) place.push_back(logit - std::log(sum));
  }
  return places;
}

// Up to the place where a policy's own answer leaves the baseline's, both have the same text before them.
TEST_P(EngineComparison, DivergenceIsThatOfTheDistributionsOfSeparateRuns) {
  const auto compared = run(*engine_, comparison(policy(PolicyKind::kFull), rivals(), 40));
  ASSERT_EQ(compared->status, absl::OkStatus());
  const auto separate = [&](const PolicySpec& spec) {
    backend_->logits.clear();
    run(*engine_, make_request(random_prompt(120, 3), 40, spec));
    return distributions(backend_->logits);
  };
  const auto baseline = separate(policy(PolicyKind::kFull));
  for (size_t i = 0; i < rivals().size(); ++i) {
    SCOPED_TRACE(std::string(policy_row(rivals()[i].kind).name));
    const PolicyComparison& rival = compared->result->comparisons[i];
    ASSERT_EQ(rival.kl.size(), 40u);
    EXPECT_EQ(rival.kl[0], 0);
    const auto own = separate(rivals()[i]);
    const size_t last = rival.first_divergence < 0 ? 39 : static_cast<size_t>(rival.first_divergence);
    ASSERT_GE(last, 1u);
    for (size_t place = 1; place <= last; ++place) {
      double kl = 0;
      for (size_t id = 0; id < static_cast<size_t>(kVocabulary); ++id) {
        kl += std::exp(baseline[place][id]) * (baseline[place][id] - own[place][id]);
      }
      EXPECT_NEAR(rival.kl[place], kl, 1e-4 + 1e-4 * kl) << place;
    }
    double sum = 0;
    for (const double kl : rival.kl) sum += kl;
    EXPECT_NEAR(rival.kl_mean, sum / 39, 1e-12);
  }
  EXPECT_THAT(compared->result->comparisons[0].kl, testing::Each(0));  // full with full
  EXPECT_GT(compared->result->comparisons[1].kl_mean, 0);
}

TEST_P(EngineComparison, StopsOfTheBaselineAndOfTheOthersDoNotDependOnEachOther) {
  const auto free = run(*engine_, comparison(policy(PolicyKind::kFull), {policy(PolicyKind::kSnapKv, 12)}, 40));
  const auto stopped_at = [&](TokenId token) {
    auto request = comparison(policy(PolicyKind::kFull), {policy(PolicyKind::kSnapKv, 12)}, 40);
    request->sampling.stop_token_ids = {token};
    return run(*engine_, request);
  };
  const auto cut = [](std::vector<TokenId> answer, TokenId token) {
    const auto found = std::find(answer.begin(), answer.end(), token);
    if (found != answer.end()) answer.erase(found + 1, answer.end());
    return answer;
  };
  for (const TokenId token : {free->ids()[0], free->ids()[5], free->result->comparisons[0].tokens[9]}) {
    const auto stopped = stopped_at(token);
    ASSERT_EQ(stopped->status, absl::OkStatus());
    EXPECT_EQ(stopped->ids(), cut(free->ids(), token));
    EXPECT_EQ(stopped->result->comparisons[0].tokens, cut(free->result->comparisons[0].tokens, token));
    EXPECT_EQ(stopped->result->comparisons[0].kl.size(), stopped->tokens.size());
  }
}

TEST_P(EngineComparison, TheSumIsReserved) {
  const auto request = comparison(policy(PolicyKind::kFull), rivals(), 40);
  const auto ask = [&](const PolicySpec& spec, std::span<const PolicySpec> others) {
    return *engine_->estimate({.policy = spec, .prompt_tokens = 120, .max_tokens = 40, .compare_with = others});
  };
  const Contract whole = ask(request->policy, request->compare_with);
  uint64_t steady = ask(request->policy, {}).steady_bytes, workspace = 0;
  for (const PolicySpec& spec : request->compare_with) {
    steady += 2 * ask(spec, {}).steady_bytes;  // one set of lanes for each of the two answers
    workspace = std::max(workspace, ask(spec, {}).cost.workspace_bytes);
  }
  EXPECT_EQ(whole.steady_bytes, steady);
  EXPECT_GE(whole.peak_bytes, steady);
  EXPECT_GE(whole.cost.workspace_bytes, workspace);

  uint64_t highest = 0, highest_live = 0;
  bool within = true;
  auto sink = std::make_shared<RecordingSink>();
  sink->at_token = [&](int32_t) {
    const EngineStats stats = *engine_->stats();
    highest = std::max(highest, stats.cache.allocated + stats.cache.auxiliary);
    highest_live = std::max(highest_live, stats.live_bytes);
    within = within && stats.live_bytes <= stats.reserved_bytes;
    return true;
  };
  submit(*engine_, request, sink)->wait();
  EXPECT_TRUE(within);
  EXPECT_LE(highest, whole.peak_bytes);
  EXPECT_LE(engine_->stats()->cache.peak, whole.peak_bytes);
  EXPECT_GT(highest_live, 0u);
  EXPECT_EQ(engine_->stats()->live_bytes, 0u);
  EXPECT_EQ(engine_->stats()->cache.auxiliary, 0u);

  // A pool that would do for each of them and not for all.
  engine_.reset();
  EngineOptions small = small_options();
  small.pool_bytes = whole.steady_bytes / 2 / 512 * 512;
  engine_ = make_engine(*tiny_.model, small);
  EXPECT_FALSE(ask(request->policy, {}).refusal);
  EXPECT_TRUE(ask(request->policy, request->compare_with).refusal);
  EXPECT_EQ(engine_->prepare(request).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_P(EngineComparison, CancellingOneGivesEverythingBack) {
  for (const int32_t at : {0, 1, 2, 17}) {  // 0: when it is admitted
    auto sink = std::make_shared<RecordingSink>();
    const auto cancel = [&, to_cancel = sink.get()] { engine_->cancel(to_cancel); };
    sink->at_start = [&] {
      if (at == 0) cancel();
    };
    sink->at_token = [&](int32_t count) {
      if (count == at) cancel();
      return true;
    };
    submit(*engine_, comparison(policy(PolicyKind::kFull), rivals(), 40), sink)->wait();
    EXPECT_EQ(sink->status.code(), absl::StatusCode::kCancelled);
    const EngineStats stats = *engine_->stats();
    EXPECT_EQ(stats.live_bytes, 0u);
    EXPECT_EQ(stats.reserved_bytes, 0u);
    EXPECT_EQ(stats.cache.held, 0u);
    EXPECT_EQ(stats.cache.auxiliary, 0u);
    EXPECT_EQ(stats.running, 0u);
  }
}

TEST_P(EngineComparison, ARecallThatOneOfThemCannotReachEndsAll) {
  PolicySpec recall{.kind = PolicyKind::kSnapKv};
  recall.budget = {.kind = BudgetKind::kMinRecall, .min_recall_millionths = 999'000, .max_bytes = 1};
  const Contract least =
      *engine_->estimate({.policy = recall, .prompt_tokens = 120, .max_tokens = 40, .compare_with = {}});
  recall.budget.max_bytes = least.own.plan.smallest_budget_bytes;
  const auto sink = run(*engine_, comparison(policy(PolicyKind::kFull), {total(PolicyKind::kH2o, 20), recall}, 40));
  EXPECT_TRUE(recall_shortfall(sink->status).has_value()) << sink->status;
  EXPECT_EQ(engine_->stats()->live_bytes, 0u);
  EXPECT_EQ(engine_->stats()->cache.auxiliary, 0u);
}

INSTANTIATE_TEST_SUITE_P(Backends, EngineComparison,
                         testing::Values(BackendOptions{.device = "reference"},
                                         BackendOptions{.device = "cpu", .threads = 1}),
                         [](const auto& backend) { return backend.param.device; });

}  // namespace
}  // namespace pkv::test
