// A device that fails at any operation at all: the engine ends, everybody is told once what is true, nothing that came
// of the failure is told, and nothing is kept.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "kernels/reference/reference_backend.h"
#include "server/policy/registry.h"
#include "tests/support/failing_backend.h"
#include "tests/support/metered_backend.h"
#include "tests/unit/engine/engine_fixture.h"

namespace pkv::test {
namespace {

// A model on a device that fails when it is told to.
class FailingModel {
 public:
  FailingModel() {
    auto metered = std::make_unique<MeteredBackend>(make_reference_backend());
    metered_ = metered.get();
    auto failing = std::make_unique<FailingBackend>(std::move(metered));
    failing_ = failing.get();
    tiny_ = make_tiny_model(std::move(failing));
  }
  const Model& operator*() const { return *tiny_.model; }
  FailingBackend& device() { return *failing_; }
  int64_t live() const { return metered_->live(); }

 private:
  MeteredBackend* metered_ = nullptr;
  FailingBackend* failing_ = nullptr;
  TinyModel tiny_;
};

// Two plain requests, or a comparison alone: the full cache, and each policy twice (Comparison::rows).
EngineOptions two_at_a_time(const Request& first) {
  EngineOptions options = small_options();
  options.max_running = std::max(2, 1 + 2 * static_cast<int32_t>(first.compare_with.size()));
  return options;
}

// What one engine came to that had three requests from the start, two of them at a time.
struct Course {
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  absl::Status failure;
  Engine::State state = Engine::State::kServing;
  EngineStats stats;
  int64_t kept_bytes = 0;  // tensors that were not there before
  int64_t operations = 0;
};

// `fail_at`: the operation that fails, counted from the first request on.
Course run_three(FailingModel& model, const std::vector<std::shared_ptr<Request>>& requests, int64_t fail_at) {
  model.device().never_fail();
  const auto engine = make_engine(*model, two_at_a_time(*requests.front()));
  const int64_t before = model.live();
  model.device().fail_at(fail_at);
  Course course;
  Gate gate;
  for (const auto& request : requests) {
    auto sink = std::make_shared<RecordingSink>();
    if (course.sinks.empty()) sink->at_start = [&] { gate.pass(); };
    course.sinks.push_back(submit(*engine, request, std::move(sink)));
    if (course.sinks.size() == 1) gate.wait_for_guest();
  }
  gate.open();
  for (const auto& sink : course.sinks) sink->wait();
  EXPECT_TRUE(engine->drain(absl::InfiniteFuture()));
  course.kept_bytes = model.live() - before;
  course.failure = engine->failure();
  course.state = engine->state();
  course.stats = *engine->stats();
  course.operations = model.device().operations();
  return course;
}

bool starts_with(const std::vector<TokenId>& whole, const std::vector<TokenId>& beginning) {
  return beginning.size() <= whole.size() && std::equal(beginning.begin(), beginning.end(), whole.begin());
}

bool same(const std::vector<LayerOutcome>& a, const std::vector<LayerOutcome>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const LayerOutcome& x, const LayerOutcome& y) {
    return x.kept == y.kept && x.recall == y.recall && x.kept_positions == y.kept_positions &&
           x.final_positions == y.final_positions;
  });
}

// `clean`: the same without a failure.
void expect_ended(const Course& course, const Course& clean) {
  EXPECT_EQ(course.state, Engine::State::kFailed);
  EXPECT_EQ(course.failure, absl::InternalError("the engine failed: the device is lost"));
  bool told = false;
  for (size_t i = 0; i < course.sinks.size(); ++i) {
    const RecordingSink& sink = *course.sinks[i];
    EXPECT_EQ(sink.ends, 1);
    EXPECT_EQ(course.sinks[i].use_count(), 1);
    EXPECT_TRUE(starts_with(clean.sinks[i]->ids(), sink.ids())) << "a token that came of the failure";
    EXPECT_LE(sink.prompt_logprobs.size(), clean.sinks[i]->prompt_logprobs.size());
    if (sink.result.has_value()) {
      EXPECT_EQ(sink.ids(), clean.sinks[i]->ids());
      EXPECT_TRUE(same(sink.result->cache.layers, clean.sinks[i]->result->cache.layers));
      continue;
    }
    told = true;
    if (sink.starts == 0) {
      EXPECT_EQ(sink.status, absl::UnavailableError("the engine has failed"));
    } else {
      EXPECT_EQ(sink.status, course.failure);
    }
  }
  EXPECT_TRUE(told) << "the failure ended nobody";
  EXPECT_EQ(course.kept_bytes, 0);
  EXPECT_EQ(course.stats.running + course.stats.waiting, 0u);
  EXPECT_EQ(course.stats.live_bytes, 0u);
  EXPECT_EQ(course.stats.reserved_bytes, 0u);
  EXPECT_EQ(course.stats.cache.held, 0u);
}

// The request, a plain one beside it and one that waits; a failure at every `stride`-th operation.
void fail_everywhere(const std::shared_ptr<Request>& request, int64_t stride) {
  FailingModel model;
  const std::vector<std::shared_ptr<Request>> requests = {request, make_request(random_prompt(20, 8), 4),
                                                          make_request(random_prompt(5, 9), 2)};
  const Course clean = run_three(model, requests, std::numeric_limits<int64_t>::max());
  ASSERT_EQ(clean.state, Engine::State::kStopped);
  for (const auto& sink : clean.sinks) ASSERT_EQ(sink->status, absl::OkStatus());
  ASSERT_GT(clean.operations, 100);
  for (int64_t n = 1; n <= clean.operations; n += stride) {
    SCOPED_TRACE(testing::Message() << "operation " << n << " of " << clean.operations);
    expect_ended(run_three(model, requests, n), clean);
    if (testing::Test::HasFailure()) return;
  }
}

std::shared_ptr<Request> watched_request(const PolicySpec& spec) {
  auto request = make_request(random_prompt(40, 7), 6, spec);
  request->record_positions = true;
  return request;
}

class BackendFailure : public testing::TestWithParam<PolicyKind> {
 protected:
  PolicySpec spec(BudgetScope scope) const {
    PolicySpec spec = policy(GetParam(), policy_row(GetParam()).takes_budget ? 20 : 0);
    spec.budget.scope = scope;
    return spec;
  }
};

TEST_P(BackendFailure, AnywhereInAPromptAndItsAnswer) {
  fail_everywhere(watched_request(spec(BudgetScope::kPrompt)), 5);
}

TEST_P(BackendFailure, AnywhereUnderATotalBudget) { fail_everywhere(watched_request(spec(BudgetScope::kTotal)), 5); }

INSTANTIATE_TEST_SUITE_P(EveryPolicy, BackendFailure, testing::ValuesIn([] {
                           std::vector<PolicyKind> kinds;
                           for (const PolicyRow& row : policy_table()) kinds.push_back(row.kind);
                           return kinds;
                         }()),
                         [](const auto& test) { return std::string(policy_row(test.param).name); });

TEST(BackendFailureTest, AtEveryOperationOfAFullCache) { fail_everywhere(watched_request({}), 1); }

TEST(BackendFailureTest, AnywhereInAComparison) {
  auto request = watched_request(policy(PolicyKind::kSnapKv, 20));
  PolicySpec total = policy(PolicyKind::kH2o, 20);
  total.budget.scope = BudgetScope::kTotal;
  request->compare_with = {policy(PolicyKind::kPyramidKv, 16), total};
  fail_everywhere(request, 3);
}

TEST(BackendFailureTest, AnywhereWithLogprobs) {
  auto request = watched_request(policy(PolicyKind::kSnapKv, 20));
  request->prompt_logprobs = request->logprobs = true;
  request->top_logprobs = 3;
  fail_everywhere(request, 3);
}

// Zeros of a failed device are not a recall that was not reached.
TEST(BackendFailureTest, AnywhereWithADemandOnRecall) {
  auto request = watched_request(policy(PolicyKind::kSnapKv, 20));
  request->policy.budget = {.kind = BudgetKind::kMinRecall, .min_recall_millionths = 500'000};
  fail_everywhere(request, 2);
}

TEST(BackendFailureTest, AnywhereWithPositionsRelativeToTheCache) {
  PolicySpec spec = policy(PolicyKind::kStreamingLlm, 20);
  spec.budget.scope = BudgetScope::kTotal;
  spec.params.position_mode = PositionMode::kCacheRelative;
  fail_everywhere(watched_request(spec), 2);
}

TEST(BackendFailureTest, OneThatHasFailedAlreadyGetsNoEngine) {
  FailingModel model;
  model.device().fail_at(1);
  EXPECT_EQ(Engine::create(*model, small_options()).status(), FailingBackend::failure());
}

TEST(BackendFailureTest, NobodyIsAdmittedAfterwards) {
  FailingModel model;
  const auto engine = make_engine(*model);
  model.device().fail_at(1);
  EXPECT_EQ(run(*engine, make_request(random_prompt(5, 1), 2))->status.code(), absl::StatusCode::kInternal);
  const absl::Status refused = prepare_and_submit(*engine, make_request({5}, 1), std::make_shared<RecordingSink>());
  EXPECT_EQ(refused, absl::UnavailableError("the engine has failed"));
}

}  // namespace
}  // namespace pkv::test
