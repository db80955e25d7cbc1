// Memory runs out at any allocation of the engine's thread: once, or from then on. Where that was in what a caller is
// told, its request ends, anywhere else the engine; everybody is told once, and the process lives.
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "tests/support/failing_new.h"
#include "tests/unit/engine/engine_fixture.h"

namespace pkv::test {
namespace {

PolicySpec total(PolicyKind kind) {
  PolicySpec spec = policy(kind, 20);
  spec.budget.scope = BudgetScope::kTotal;
  return spec;
}

// Three requests, two at a time; the engine's thread fails its `n`-th allocation from the first start on, `failures` in
// a row. Whether it came to that many allocations.
bool run_out(const Model& model, int64_t n, int64_t failures) {
  EngineOptions options = small_options();
  options.max_running = 2;
  auto engine = make_engine(model, options);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  Gate gate;
  bool came_to_it = false;
  const std::vector<std::shared_ptr<Request>> requests = {
      make_request(random_prompt(40, 1), 6, total(PolicyKind::kSnapKv)), make_request(random_prompt(20, 2), 4),
      make_request(random_prompt(5, 3), 2, total(PolicyKind::kH2o))};
  for (const auto& request : requests) {
    auto sink = std::make_shared<RecordingSink>();
    if (sinks.empty()) {
      sink->at_start = [&] {
        gate.pass();
        fail_allocations(n, failures);
      };
    }
    sink->at_end = [&, left = failures] { came_to_it = came_to_it || failures_left() < left; };
    sinks.push_back(submit(*engine, request, std::move(sink)));
    if (sinks.size() == 1) gate.wait_for_guest();
  }
  gate.open();
  for (const auto& sink : sinks) sink->wait();
  EXPECT_TRUE(engine->drain(absl::InfiniteFuture()));
  const bool failed = engine->state() == Engine::State::kFailed;
  EXPECT_EQ(engine->failure().code(), failed ? absl::StatusCode::kInternal : absl::StatusCode::kOk);
  int without_memory = 0;
  for (const auto& sink : sinks) {
    EXPECT_EQ(sink->ends, 1);
    if (sink->status.code() == absl::StatusCode::kResourceExhausted) ++without_memory;
    if (sink->status.ok() || sink->status.code() == absl::StatusCode::kResourceExhausted) continue;
    EXPECT_TRUE(failed);
    EXPECT_EQ(sink->status.code(), sink->starts == 0 ? absl::StatusCode::kUnavailable : absl::StatusCode::kInternal);
  }
  EXPECT_EQ(came_to_it, failed || without_memory > 0);
  engine.reset();
  for (const auto& sink : sinks) EXPECT_EQ(sink.use_count(), 1);
  return came_to_it;
}

void run_out_everywhere(int64_t failures, int64_t stride) {
  const TinyModel tiny = make_tiny_model();
  int64_t n = 0;
  for (; run_out(*tiny.model, n, failures); n += stride) {
    if (testing::Test::HasFailure()) FAIL() << "at allocation " << n;
  }
  EXPECT_GT(n, 300) << "this is to reach the end of three requests";
}

TEST(AllocationFailure, OneAnywhere) { run_out_everywhere(1, 5); }

TEST(AllocationFailure, ManyFromAnywhereOn) { run_out_everywhere(100, 7); }

}  // namespace
}  // namespace pkv::test
