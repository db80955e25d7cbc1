// What a request's contract says it needs beside the cache is what the backend is asked for, to the byte: the workspace
// while the prompt is read, the state of its evictions until it ends. Both are reserved. And what all requests share is
// what the engine asked for when it was made.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <utility>

#include "kernels/reference/reference_backend.h"
#include "server/engine/logit_edits.h"
#include "server/policy/registry.h"
#include "tests/support/shaped_policy.h"
#include "tests/unit/engine/engine_fixture.h"

namespace pkv::test {
namespace {

// Counts the bytes of all tensors that are there, and those of staged memory that ever was asked for.
class CountingBackend final : public ReferenceBackend {
 public:
  absl::StatusOr<Tensor> allocate(int64_t rows, int64_t cols, DType dtype) override {
    absl::StatusOr<Tensor> tensor = ReferenceBackend::allocate(rows, cols, dtype);
    if (!tensor.ok()) return tensor;
    auto held = std::make_shared<Tensor>(*std::move(tensor));
    const auto bytes = static_cast<int64_t>(held->bytes());
    live_ += bytes;
    std::shared_ptr<void> storage(held.get(), [this, held, bytes](void*) { live_ -= bytes; });
    return Tensor(std::move(storage), held->view());
  }
  absl::StatusOr<Staged> allocate_staged(size_t bytes) override {
    staged_ += static_cast<int64_t>(bytes);
    return ReferenceBackend::allocate_staged(bytes);
  }
  int64_t live() const { return live_; }
  int64_t staged() const { return staged_; }

 private:
  std::atomic<int64_t> live_ = 0, staged_ = 0;
};

class WorkspaceTest : public testing::Test {
 protected:
  WorkspaceTest() {
    auto counting = std::make_unique<CountingBackend>();
    backend_ = counting.get();
    tiny_ = make_tiny_model(std::move(counting));
    engine_ = make_engine(*tiny_.model, watched_options());
  }

  void expect_exact(const std::shared_ptr<Request>& request) {
    const Contract contract = *engine_->estimate(query_of(*request));
    // What stands for edits on the host; the rest is what the backend is asked for.
    const auto edits = static_cast<uint64_t>(std::min<int64_t>(LogitEdits::most_tokens(*request), 320));  // vocabulary
    const uint64_t host = (1 + contract.rivals.size()) * (LogitEdits::bytes(1) - sizeof(LogitEdit)) * edits;
    const uint64_t shared = engine_->stats()->workspace_bytes;
    const int64_t before = backend_->live();
    std::vector<int64_t> at_token;  // the first while the prompt's workspace is still there
    auto sink = std::make_shared<RecordingSink>();
    sink->at_token = [&](int32_t) {
      at_token.push_back(backend_->live() - before);
      return true;
    };
    submit(*engine_, request, sink)->wait();
    ASSERT_EQ(sink->status, absl::OkStatus());
    ASSERT_GE(at_token.size(), 2u);
    const auto state = static_cast<int64_t>(contract.cost.state_bytes - host);
    EXPECT_EQ(at_token[0], static_cast<int64_t>(contract.cost.workspace_bytes) + state);
    EXPECT_EQ(at_token[1], state);
    EXPECT_EQ(backend_->live(), before);
    EXPECT_EQ(sink->result->cache.workspace_bytes, shared + contract.cost.workspace_bytes);
  }

  CountingBackend* backend_ = nullptr;
  TinyModel tiny_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(WorkspaceTest, OfASparsePrompt) {
  PolicySpec spec = policy(PolicyKind::kPyramidKv, 32);
  spec.prefill = PrefillAttention::kVerticalSlash;
  spec.prefill_tokens = 128;
  expect_exact(make_request(random_prompt(1000, 8), 3, spec));
}

TEST_F(WorkspaceTest, ThatAllShareIsWhatTheEngineAllocates) {
  engine_.reset();
  const int64_t tensors = backend_->live(), staged = backend_->staged();
  engine_ = make_engine(*tiny_.model, watched_options());
  const EngineOptions& options = engine_->options();
  const auto table = static_cast<int64_t>(
      4 * options.pool_bytes / static_cast<uint64_t>(options.page_bytes));  // page ids, of whoever has the pages
  // Of the output head on the host: results of each row of a step as the backend has them, and one row of logits with
  // its ranking, of one thread.
  const int64_t result_bytes = 4 * (8 + 3 * kMaxTopLogprobs + 3 * kMostRanked);
  const int64_t host = options.step_tokens * result_bytes + (4 + 24) * tiny_.model->shape().vocab_size;
  EXPECT_EQ(static_cast<int64_t>(engine_->stats()->workspace_bytes),
            backend_->live() - tensors + backend_->staged() - staged - table + host);
}

PolicySpec total(PolicyKind kind, int64_t tokens) {
  PolicySpec spec = policy(kind, tokens);
  spec.budget.scope = BudgetScope::kTotal;
  return spec;
}

TEST_F(WorkspaceTest, OfEveryPolicyIsWhatIsAllocated) {
  for (const PolicyRow& row : policy_table()) {
    for (const BudgetScope scope : {BudgetScope::kPrompt, BudgetScope::kTotal}) {
      SCOPED_TRACE(std::string(row.name) + (scope == BudgetScope::kTotal ? " TOTAL" : " PROMPT"));
      PolicySpec spec = policy(row.kind, row.takes_budget ? 30 : 0);
      spec.budget.scope = scope;
      expect_exact(make_request(random_prompt(100, 3), 5, spec));
      spec.params.position_mode = PositionMode::kCacheRelative;
      expect_exact(make_request(random_prompt(70, 3), 5, spec));
      spec.budget.tokens = 1000;  // nothing has to go, so nothing is observed
      expect_exact(make_request(random_prompt(100, 3), 5, spec));
    }
  }
}

TEST_F(WorkspaceTest, OfAnyDivisionIsWhatIsAllocated) {
  for (const LaneShape shape : {LaneShape::kLanes, LaneShape::kTotals}) {
    EngineOptions options = watched_options();
    options.make_policy = shaped_policies(shape);
    engine_.reset();  // a backend serves one engine
    engine_ = make_engine(*tiny_.model, options);
    for (const PolicyRow& row : policy_table()) {
      if (!row.takes_budget) continue;
      SCOPED_TRACE(std::string(row.name) + " " + name_of(shape));
      expect_exact(make_request(random_prompt(100, 3), 5, total(row.kind, 30)));
      expect_exact(make_request(random_prompt(100, 3), 5, policy(row.kind, 30)));
    }
  }
}

// The values that are refitted are computed on the host, whose part nobody counts: it is beside what is allocated.
TEST_F(WorkspaceTest, OfRefittedValuesIsMoreThanIsAllocated) {
  PolicySpec spec = policy(PolicyKind::kFunnel, 45);
  int64_t allocated[2], said[2];
  for (const bool refit : {false, true}) {
    spec.params.refit_values = refit;
    const auto request = make_request(random_prompt(100, 3), 5, spec);
    const int64_t before = backend_->live();
    auto sink = std::make_shared<RecordingSink>();
    allocated[refit] = 0;
    sink->at_token = [&](int32_t) {
      if (allocated[refit] == 0) allocated[refit] = backend_->live() - before;  // at the first
      return true;
    };
    submit(*engine_, request, sink)->wait();
    ASSERT_EQ(sink->status, absl::OkStatus());
    said[refit] = static_cast<int64_t>(engine_->estimate(query_of(*request))->cost.workspace_bytes);
  }
  EXPECT_GT(allocated[1], allocated[0]);
  EXPECT_GT(said[1] - said[0], allocated[1] - allocated[0]);
}

TEST_F(WorkspaceTest, OfAComparisonIsWhatIsAllocated) {
  auto request = make_request(random_prompt(100, 3), 5, total(PolicyKind::kTova, 40));
  request->compare_with = {policy(PolicyKind::kSnapKv, 20), total(PolicyKind::kH2o, 24),
                           total(PolicyKind::kKeyDiff, 30)};
  expect_exact(request);
}

TEST_F(WorkspaceTest, OfEditsOfLogitsIsWhatIsAllocated) {
  auto request = make_request(random_prompt(100, 3), 5);
  request->sampling.logit_bias = {{7, 1.0f}, {8, -1.0f}};
  request->sampling.min_tokens = 3;
  request->sampling.stop_token_ids = {7, 11};
  EXPECT_EQ(LogitEdits::most_tokens(*request), 3 + static_cast<int64_t>(request->end_tokens.size()));
  expect_exact(request);
  request->compare_with = {policy(PolicyKind::kSnapKv, 20), policy(PolicyKind::kFull)};
  expect_exact(request);
  request->compare_with.clear();
  request->sampling.presence_penalty = 0.5f;
  expect_exact(request);
  request->sampling.repetition_penalty = 1.1f;
  const std::set<TokenId> distinct(request->prompt.begin(), request->prompt.end());
  EXPECT_GE(LogitEdits::most_tokens(*request), static_cast<int64_t>(distinct.size()) + 4);
  expect_exact(request);
  request->sampling.max_tokens = 700;  // the vocabulary is all that can ever be
  EXPECT_GT(LogitEdits::most_tokens(*request), 320);
  EXPECT_EQ(engine_->estimate(query_of(*request))->cost.state_bytes, LogitEdits::bytes(320));
}

TEST_F(WorkspaceTest, StateThatIsMoreThanThereIsIsRefused) {
  EngineOptions options = small_options();
  options.workspace_bytes = 400'000;
  engine_ = make_engine(*tiny_.model, options);
  PolicySpec spec = total(PolicyKind::kSnapKv, 400);
  spec.params.window_tokens = 390;  // as many queries are kept in every layer
  const auto request = make_request(random_prompt(100, 3), 500, spec);
  const std::optional<Refusal> refusal = refusal_of(engine_->prepare(request).status());
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->reason, Refusal::Reason::kWorkspace);
  EXPECT_LE(refusal->workspace_bytes, options.workspace_bytes);
  EXPECT_GT(refusal->state_bytes + refusal->workspace_bytes, options.workspace_bytes);
  spec.params.window_tokens = 8;
  EXPECT_TRUE(engine_->prepare(make_request(random_prompt(100, 3), 500, spec)).ok());
}

TEST_F(WorkspaceTest, WhoHasNoRoomForItsStateWaits) {
  PolicySpec spec = total(PolicyKind::kSnapKv, 60);
  spec.params.window_tokens = 50;
  const auto request = make_request(random_prompt(100, 3), 60, spec);
  const JobCost cost = engine_->estimate(query_of(*request))->cost;
  EngineOptions options = watched_options();
  options.workspace_bytes = 2 * cost.state_bytes + cost.workspace_bytes - 1;  // one byte short of two
  engine_ = make_engine(*tiny_.model, options);
  const int64_t before = backend_->live();
  std::atomic<int64_t> most = 0;
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 4; ++i) {
    auto sink = std::make_shared<RecordingSink>();
    sink->at_token = [&](int32_t) {
      most = std::max<int64_t>(most, backend_->live() - before);
      return true;
    };
    sinks.push_back(submit(*engine_, request, sink));
  }
  for (const auto& sink : sinks) {
    sink->wait();
    EXPECT_EQ(sink->status, absl::OkStatus());
    EXPECT_EQ(sink->ids(), sinks.front()->ids());
  }
  EXPECT_LE(most, static_cast<int64_t>(cost.state_bytes + cost.workspace_bytes));
}

}  // namespace
}  // namespace pkv::test
