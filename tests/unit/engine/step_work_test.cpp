// What prompts may do between two tokens of somebody else is bounded, and counted as the backend sees it:
// multiply-adds, no time.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <latch>
#include <string>

#include "server/engine/prompt_work.h"
#include "tests/support/forwarding_backend.h"
#include "tests/unit/engine/engine_fixture.h"

namespace pkv::test {
namespace {

constexpr PromptWork kWork{.row = 100, .pair = 3, .cut = 50, .head_row = 7};

TEST(PromptWork, CountsEveryPairOfARowAndAnEntryThatItSees) {
  EXPECT_EQ(kWork.rows(0, 1), 103);
  EXPECT_EQ(kWork.rows(0, 4), 4 * 100 + 3 * (1 + 2 + 3 + 4));
  EXPECT_EQ(kWork.rows(10, 2), 2 * 100 + 3 * (11 + 12));
  EXPECT_EQ(kWork.whole(4, 2), 2 * (4 * 100 + 3 * 10 + 50) + 4 * 7);
}

TEST(PromptWork, FewRowsTakeALayerAsLongAsTheLeast) {
  PromptWork work = kWork;
  work.least_rows = 8;
  EXPECT_EQ(work.rows(0, 1), 8 * 100 + 3);
  EXPECT_EQ(work.rows(0, 8), kWork.rows(0, 8));
  EXPECT_EQ(work.rows_within(8 * 100 + 3 * 36, 0, 20), 8);  // so as many are taken
}

TEST(PromptWork, LaterRowsAreFewerToAUnit) {
  int32_t before = 1000;
  for (int32_t first = 0; first < 2000; first += 100) {
    const int32_t rows = kWork.rows_within(5000, first, 1000);
    EXPECT_LE(kWork.rows(first, rows), std::max<int64_t>(5000, kWork.rows(first, 1)));
    EXPECT_GT(kWork.rows(first, rows + 1), 5000);
    EXPECT_LE(rows, before);
    before = rows;
  }
  EXPECT_EQ(before, 1);  // one is always done
  EXPECT_EQ(kWork.rows_within(1'000'000'000, 0, 64), 64);
}

// Adds up what the backend is asked for. Read by the engine thread alone, between operations.
class WorkMeter : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;

  int64_t take() { return std::exchange(work_, 0); }

  void linear(const TensorView& x, const Weight& weight, bool accumulate, Phase phase, const TensorView& out) override {
    work_ += x.rows * weight.rows() * weight.cols();
    ForwardingBackend::linear(x, weight, accumulate, phase, out);
  }
  void attend(const AttendArgs& args) override {
    for (const RowSpan& span : args.spans) {
      const int64_t newest = args.kv.lanes[span.first_lane].length;
      int64_t pairs = span.rows * newest - int64_t{span.rows} * (span.rows - 1) / 2;
      if (args.sparse.is_set()) {
        const int64_t most = args.sparse.columns.cols + (args.sparse.bands.cols + 1) * kSparseBlock;
        pairs = std::min(pairs, span.rows * most);
      }
      work_ += 2 * args.q_heads * args.kv.head_dim * pairs;
    }
    ForwardingBackend::attend(args);
  }
  void row_lse(const ObserveArgs& args, const TensorView& lse) override {
    work_ += pass(args);
    ForwardingBackend::row_lse(args, lse);
  }
  void column_mass(const ObserveArgs& args, const TensorView& lse, const TensorView& sums,
                   const TensorView& squares) override {
    work_ += pass(args);
    ForwardingBackend::column_mass(args, lse, sums, squares);
  }
  void diagonal_mass(const ObserveArgs& args, const TensorView& lse, const TensorView& sums) override {
    work_ += pass(args);
    ForwardingBackend::diagonal_mass(args, lse, sums);
  }
  void value_norms(const KvView& kv, int32_t first_lane, int32_t kv_heads, const TensorView& factors,
                   const TensorView& norms) override {
    work_ += norms.rows * norms.cols * kv.head_dim * kv.head_dim / 2;
    ForwardingBackend::value_norms(kv, first_lane, kv_heads, factors, norms);
  }

 private:
  static int64_t pass(const ObserveArgs& args) {
    int64_t pairs = 0;
    for (int32_t row = 0; row < args.q.rows; ++row) pairs += args.visible(args.kv.lanes[args.first_lane].length, row);
    return pairs * args.q_heads * args.kv.head_dim;
  }

  int64_t work_ = 0;
};

PolicySpec hostile(PolicyKind kind) {
  PolicySpec spec = policy(kind, 420);
  if (kind == PolicyKind::kFunnel) spec.params.observed_rows = 380;
  if (kind == PolicyKind::kSnapKv) spec.params.window_tokens = 380;
  return spec;
}

std::vector<std::shared_ptr<Request>> costly_requests() {
  std::vector<std::shared_ptr<Request>> requests;
  const auto add = [&](const PolicySpec& spec) {
    requests.push_back(make_request(random_prompt(450, 2), 3, spec));
    requests.back()->record_positions = true;
    return requests.back();
  };
  for (const PolicyKind kind : {PolicyKind::kFull, PolicyKind::kSnapKv, PolicyKind::kH2o, PolicyKind::kFunnel}) {
    add(kind == PolicyKind::kFull ? policy(kind) : hostile(kind));
  }
  add(policy(PolicyKind::kFull))->compare_with = {hostile(PolicyKind::kSnapKv), policy(PolicyKind::kH2o, 40),
                                                  hostile(PolicyKind::kFunnel)};
  add(policy(PolicyKind::kFull))->prompt_logprobs = true;
  for (PolicySpec sparse : {policy(PolicyKind::kFull), hostile(PolicyKind::kH2o)}) {
    sparse.prefill = PrefillAttention::kVerticalSlash;
    sparse.prefill_tokens = 128;
    add(sparse);
  }
  return requests;
}

TEST(StepWork, BetweenTwoTokensPromptsDoNoMoreThanAStep) {
  auto metered = std::make_unique<WorkMeter>(make_backend({.device = "cpu", .threads = 1}).value());
  WorkMeter& meter = *metered;
  const TinyModel tiny = make_tiny_model(std::move(metered));
  EngineOptions options = small_options();
  options.pool_bytes *= 4;
  options.max_running = 8;
  const auto engine = make_engine(*tiny.model, options);
  const ModelShape& shape = tiny.model->shape();
  const StepWork step(shape, engine->options());
  const int64_t row = model_row_work(shape);
  EXPECT_EQ(step.least(), engine->options().step_rows * row);
  EXPECT_EQ(step.beside(1, 0), step.least());
  EXPECT_GT(step.beside(1, 100), step.beside(1, 50));  // a step that takes longer leaves room for more

  for (const auto& request : costly_requests()) {
    SCOPED_TRACE(std::to_string(static_cast<int>(request->policy.kind)));
    // Its own row sees at most so many entries.
    constexpr int64_t kOwnTokens = 250;
    const int64_t own = row + shape.layers * 2 * shape.q_heads * shape.head_dim * kOwnTokens;
    // One row of all policies, or one head's norms, or the rows by which a pattern is chosen, are not divided.
    const PromptWork work = engine->estimate(query_of(*request))->work;
    int64_t indivisible = std::max<int64_t>(work.rows(449, 1), 450 * 4 * shape.head_dim * shape.head_dim);
    if (request->policy.prefill != PrefillAttention::kDense) {
      indivisible = std::max(indivisible, kSparseBlock * layer_row_work(shape));
    }
    auto stream = std::make_shared<RecordingSink>();
    auto costly = std::make_shared<RecordingSink>();
    int64_t most = 0;
    std::latch submitted(1);  // or the stream could be over before it is
    stream->at_token = [&](int32_t tokens) {
      if (tokens == 1) submitted.wait();
      const int64_t done = meter.take();
      if (tokens > 2 && costly->tokens.empty()) most = std::max(most, done);
      return costly->ends == 0 || tokens < 40;
    };
    submit(*engine, make_request(random_prompt(10, 1), 240), stream);
    submit(*engine, request, costly);
    submitted.count_down();
    costly->wait();
    EXPECT_EQ(costly->status, absl::OkStatus());
    stream->wait();
    EXPECT_LE(most, own + step.beside(1, kOwnTokens) + indivisible);
    EXPECT_GT(most, own);  // and the prompt got its share
  }
}

PolicySpec hostile_total(PolicyKind kind) {
  PolicySpec spec = policy(kind, 420);
  spec.params.window_tokens = 380;
  spec.budget.scope = BudgetScope::kTotal;
  spec.budget.interval_tokens = 1;
  return spec;
}

// Whose scores are made anew for every token, by nearly as many queries as it has entries.
std::vector<std::shared_ptr<Request>> costly_answers() {
  std::vector<std::shared_ptr<Request>> requests;
  for (const PolicyKind kind : {PolicyKind::kSnapKv, PolicyKind::kFunnel}) {
    requests.push_back(make_request(random_prompt(430, 2), 4, hostile_total(kind)));
  }
  requests.push_back(make_request(random_prompt(430, 2), 3));
  requests.back()->compare_with = {hostile_total(PolicyKind::kSnapKv)};
  for (const auto& request : requests) request->record_positions = true;
  return requests;
}

TEST(StepWork, BetweenTwoTokensScoresAreMadeAnewByNoMoreThanAStep) {
  auto metered = std::make_unique<WorkMeter>(make_backend({.device = "cpu", .threads = 1}).value());
  WorkMeter& meter = *metered;
  const TinyModel tiny = make_tiny_model(std::move(metered));
  EngineOptions options = small_options();
  options.pool_bytes *= 4;
  const auto engine = make_engine(*tiny.model, options);
  const ModelShape& shape = tiny.model->shape();
  const int64_t row = model_row_work(shape), pair = 2 * shape.layers * shape.q_heads * shape.head_dim;
  for (const auto& request : costly_answers()) {
    SCOPED_TRACE(std::to_string(static_cast<int>(request->policy.kind)));
    constexpr int64_t kOwnTokens = 250;
    const int64_t rows = engine->estimate(query_of(*request))->cost.rows;
    const int64_t step = (1 + rows) * row + pair * (kOwnTokens + rows * 430);
    const int64_t indivisible = 430 * 4 * shape.head_dim * shape.head_dim;
    auto stream = std::make_shared<RecordingSink>();
    auto costly = std::make_shared<RecordingSink>();
    int64_t most = 0;
    int32_t meanwhile = 0;
    std::latch submitted(1);
    stream->at_token = [&](int32_t tokens) {
      if (tokens == 1) submitted.wait();
      const int64_t done = meter.take();
      if (!costly->tokens.empty() && costly->ends == 0) {
        most = std::max(most, done);
        ++meanwhile;
      }
      return costly->ends == 0;
    };
    submit(*engine, make_request(random_prompt(10, 1), 450), stream);
    submit(*engine, request, costly);
    submitted.count_down();
    costly->wait();
    EXPECT_EQ(costly->status, absl::OkStatus());
    stream->wait();
    // The step's own rows, and beside them as much again.
    EXPECT_LE(most,
              step + StepWork(shape, engine->options()).beside(1 + static_cast<size_t>(rows), kOwnTokens + rows * 430) +
                  indivisible);
    EXPECT_GT(meanwhile, 20);  // others' tokens
  }
}

// In whatever units a prompt is read or an answer's entries are scored, the same is kept and answered, to the bit.
TEST(StepWork, UnitsDoNotChangeWhatIsKept) {
  const TinyModel tiny = make_tiny_model({.device = "cpu", .exact = true, .threads = 2});
  const auto run_all = [&](int32_t chunk_rows, int32_t step_rows) {
    EngineOptions options = small_options();
    options.pool_bytes *= 4;
    options.prefill_chunk_rows = options.step_tokens = chunk_rows;
    options.step_rows = step_rows;
    const auto engine = make_engine(*tiny.model, options);
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (const auto& requests : {costly_requests(), costly_answers()}) {
      for (const auto& request : requests) {
        request->logprobs = true;
        sinks.push_back(run(*engine, request));
      }
    }
    return sinks;
  };
  const auto whole = run_all(512, 100'000), divided = run_all(7, 1);
  for (size_t i = 0; i < whole.size(); ++i) {
    SCOPED_TRACE(i);
    ASSERT_EQ(divided[i]->status, absl::OkStatus());
    EXPECT_EQ(divided[i]->ids(), whole[i]->ids());
    for (size_t token = 0; token < whole[i]->tokens.size(); ++token) {
      EXPECT_EQ(divided[i]->tokens[token].logprob, whole[i]->tokens[token].logprob);
    }
    const CacheReport &report = divided[i]->result->cache, &expected = whole[i]->result->cache;
    ASSERT_EQ(report.layers.size(), expected.layers.size());
    for (size_t layer = 0; layer < expected.layers.size(); ++layer) {
      EXPECT_EQ(report.layers[layer].kept_positions, expected.layers[layer].kept_positions);
      EXPECT_EQ(report.layers[layer].final_positions, expected.layers[layer].final_positions);
      EXPECT_EQ(report.layers[layer].recall, expected.layers[layer].recall);
    }
  }
}

}  // namespace
}  // namespace pkv::test
