// Whole requests on a simulated device, whose decode steps are recorded and replayed: answers are to the bit those of
// steps that are asked for kernel by kernel, alone and among others, and a step takes the host a few calls. And what
// the device's memory is used for.
#include <gtest/gtest.h>

#include <utility>

#include "kernels/cuda/sim/sim_backend.h"
#include "server/engine/device_use.h"
#include "server/policy/registry.h"
#include "tests/unit/engine/engine_fixture.h"

namespace pkv::test {
namespace {

struct Device {
  std::shared_ptr<sim::SimStream> stream;
  TinyModel tiny;
};

Device make_device(bool exact, bool graphs, const sim::Options& options = {.order = sim::Order::kShuffled}) {
  sim::SimBackend made = *sim::make_sim_backend(options, exact, graphs);
  return {made.stream, make_tiny_model(std::move(made.backend))};
}

struct Answer {
  std::vector<TokenId> ids;
  std::vector<float> logprobs;
  bool operator==(const Answer&) const = default;
};

Answer answer_of(const RecordingSink& sink) {
  EXPECT_EQ(sink.status, absl::OkStatus());
  Answer answer{.ids = sink.ids()};
  for (const TokenLogprob& token : sink.tokens) answer.logprobs.push_back(token.logprob);
  return answer;
}

// Policies in both scopes, beside requests that nothing is taken from, of different lengths: steps of many shapes. In
// exact mode every policy goes through engine_contract_test.
std::vector<std::shared_ptr<Request>> requests(bool exact) {
  std::vector<std::shared_ptr<Request>> requests;
  const auto add = [&](int32_t prompt, int32_t answer, const PolicySpec& spec) {
    const auto seed = static_cast<uint32_t>(requests.size());
    requests.push_back(make_request(random_prompt(prompt, seed), answer, spec));
    requests.back()->logprobs = true;
  };
  add(1, 9, {});
  for (const PolicyRow& row : policy_table()) {
    if (!row.takes_budget || (exact && row.kind != PolicyKind::kPyramidKv)) continue;
    for (const BudgetScope scope : {BudgetScope::kPrompt, BudgetScope::kTotal}) {
      PolicySpec spec = policy(row.kind, 14);
      spec.params.funnel_allocation = FunnelAllocation::kGlobal;  // without a table of the model
      spec.budget.scope = scope;
      spec.budget.interval_tokens = 3;
      add(20, scope == BudgetScope::kPrompt ? 6 : 10, spec);
    }
  }
  add(33, 12, {});
  return requests;
}

std::vector<Answer> together(const Device& device, bool exact) {
  const auto engine = make_engine(*device.tiny.model);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (const auto& request : requests(exact)) sinks.push_back(submit(*engine, request));
  std::vector<Answer> answers;
  for (const auto& sink : sinks) {
    sink->wait();
    answers.push_back(answer_of(*sink));
  }
  return answers;
}

class DecodeGraphTest : public testing::TestWithParam<bool> {};

TEST_P(DecodeGraphTest, AnswersAreThoseOfStepsThatAreAskedForAnew) {
  const Device recorded = make_device(GetParam(), true), anew = make_device(GetParam(), false);
  const std::vector<Answer> answers = together(recorded, GetParam());
  EXPECT_EQ(answers, together(anew, GetParam()));
  // Alone the rows beside it are nobody's.
  const auto engine = make_engine(*recorded.tiny.model);
  for (const size_t i : {size_t{0}, answers.size() - 1}) {
    EXPECT_EQ(answer_of(*run(*engine, requests(GetParam())[i])), answers[i]) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Modes, DecodeGraphTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "exact" : "standard"; });

// Of a decode step once it is recorded.
struct StepCost {
  int64_t calls = 0, waits = 0;
};

StepCost cost_of_a_step(bool graphs, const PolicySpec& spec = {}) {
  const Device device = make_device(true, graphs);
  const auto engine = make_engine(*device.tiny.model);
  std::vector<StepCost> at_token;
  auto sink = std::make_shared<RecordingSink>();
  sink->at_token = [&](int32_t) {
    at_token.push_back({device.stream->calls(), device.stream->waits()});
    return true;
  };
  submit(*engine, make_request(random_prompt(24, 1), 8, spec), sink)->wait();
  EXPECT_EQ(sink->status, absl::OkStatus());
  const StepCost &last = at_token.back(), &before = at_token[at_token.size() - 2];
  return {last.calls - before.calls, last.waits - before.waits};
}

TEST(DecodeStepTest, IsAFewCallsOfTheHostAndOneWait) {
  const StepCost recorded = cost_of_a_step(true), anew = cost_of_a_step(false);
  EXPECT_EQ(recorded.waits, 1);
  EXPECT_EQ(anew.waits, 1);
  // What goes up, perhaps page ids, all that is computed, and what comes back.
  EXPECT_LE(recorded.calls, 4);
  EXPECT_GE(anew.calls, 30);
}

// Where entries go no step is different: not by what is known of them when they come, nor where scores grow by the
// tokens' attention, nor where queries are kept to score by later.
TEST(DecodeStepTest, IsAsFewCallsWhereEntriesGo) {
  for (const PolicyKind kind :
       {PolicyKind::kStreamingLlm, PolicyKind::kKeyDiff, PolicyKind::kH2o, PolicyKind::kSnapKv, PolicyKind::kTova}) {
    PolicySpec spec = policy(kind, 20);  // scores last for the tokens that are looked at
    spec.budget.scope = BudgetScope::kTotal;
    EXPECT_LE(cost_of_a_step(true, spec).calls, 4) << static_cast<int>(kind);
    EXPECT_GE(cost_of_a_step(false, spec).calls, 30);
  }
}

// Steps of all shapes, one after the other: several evicting sequences, whose keys are scored or not, with and without
// log-probabilities, scored by attention or at intervals.
TEST(DecodeStepTest, EveryShapeHasItsOwnRecording) {
  const auto answers = [](bool graphs) {
    const Device device = make_device(true, graphs);
    const auto engine = make_engine(*device.tiny.model);
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    const PolicyKind kinds[] = {PolicyKind::kStreamingLlm, PolicyKind::kKeyDiff, PolicyKind::kFull,
                                PolicyKind::kKeyDiff,      PolicyKind::kL2Norm,  PolicyKind::kSnapKv,
                                PolicyKind::kRandom,       PolicyKind::kH2o};
    for (size_t i = 0; i < std::size(kinds); ++i) {
      PolicySpec spec = policy(kinds[i], kinds[i] == PolicyKind::kFull ? 0 : 14);
      if (kinds[i] != PolicyKind::kFull) spec.budget.scope = BudgetScope::kTotal;
      auto request = make_request(random_prompt(20, static_cast<uint32_t>(i)), 4 + 3 * static_cast<int32_t>(i), spec);
      request->logprobs = i % 2 == 1;
      sinks.push_back(submit(*engine, request));
    }
    std::vector<Answer> all;
    for (const auto& sink : sinks) {
      sink->wait();
      all.push_back(answer_of(*sink));
    }
    return all;
  };
  EXPECT_EQ(answers(true), answers(false));
}

// A failure in a replayed step is the request's, and the engine's end, as anywhere else.
TEST(DecodeStepTest, AFailureInAReplayedStepIsNoticed) {
  const Device device = make_device(true, true);
  const auto engine = make_engine(*device.tiny.model);
  auto sink = std::make_shared<RecordingSink>();
  sink->at_token = [&](int32_t tokens) {
    if (tokens == 5) device.stream->fail_at(2);
    return true;
  };
  submit(*engine, make_request(random_prompt(9, 1), 20), sink)->wait();
  EXPECT_EQ(sink->status.code(), absl::StatusCode::kInternal) << sink->status;
  EXPECT_EQ(sink->tokens.size(), 5u);
}

TEST(DeviceMemoryTest, IsToldByUse) {
  const Device device = make_device(true, true);
  const auto engine = make_engine(*device.tiny.model);
  run(*engine, make_request(random_prompt(40, 1), 3));
  const std::shared_ptr<const EngineStats> stats = engine->stats();
  ASSERT_TRUE(stats->device.has_value());
  const DeviceUse use = device_use(*stats);
  EXPECT_EQ(use.kv_live + use.kv_free, stats->pool_bytes);
  EXPECT_EQ(use.weights + use.kv_live + use.kv_free + use.workspace + use.step + use.other + use.idle,
            stats->device->reserved);
  for (const uint64_t part : {use.weights, use.workspace, use.step, use.other, use.staging}) EXPECT_GT(part, 0u);
  EXPECT_LT(use.other, stats->pool_bytes / 4) << "positions: 4 bytes a slot of the densest format";
}

}  // namespace
}  // namespace pkv::test
