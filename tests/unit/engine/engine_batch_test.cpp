// What a request answers: the same alone and among others, whatever their policies; budgets that keep everything;
// scheduling as seen from outside.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "kernels/reference/reference_backend.h"
#include "server/engine/prompt_work.h"
#include "tests/unit/engine/engine_fixture.h"

namespace pkv::test {
namespace {

struct Machine {
  std::string name;
  BackendOptions backend;
  WeightType weights;
};

class OtherTraits final : public ReferenceBackend {
 public:
  BackendTraits traits() const override { return {.page_bytes = 8192, .prefill_rows = 24, .step_rows = 7}; }
};

// Page size, rows of a prompt unit and rows between steps are the backend's where the options have none.
TEST(EngineOptions, AreTheBackendsChoiceWhereTheyAreZero) {
  const TinyModel usual = make_tiny_model({.device = "cpu", .threads = 1});
  const auto engine = make_engine(*usual.model, {.pool_bytes = 1 << 20});
  EXPECT_EQ(engine->options().page_bytes, 4096);
  EXPECT_EQ(engine->options().prefill_chunk_rows, 256);
  EXPECT_EQ(engine->options().step_rows, 3);
  const TinyModel other = make_tiny_model(std::make_unique<OtherTraits>());
  const auto chosen = make_engine(*other.model, {.pool_bytes = 1 << 20});
  EXPECT_EQ(chosen->options().page_bytes, 8192);
  EXPECT_EQ(chosen->options().prefill_chunk_rows, 24);
  EXPECT_EQ(chosen->options().step_rows, 7);
  EXPECT_EQ(chosen->stats()->free_bytes, uint64_t{1} << 20);
  EXPECT_EQ(run(*chosen, make_request(random_prompt(50, 1), 3))->status, absl::OkStatus());
}

TEST(EngineOptions, GoBeforeTheBackendsChoice) {
  const TinyModel other = make_tiny_model(std::make_unique<OtherTraits>());
  const auto engine = make_engine(
      *other.model,
      {.pool_bytes = 1 << 20, .page_bytes = 1024, .prefill_chunk_rows = 40, .step_tokens = 32, .step_rows = 5});
  EXPECT_EQ(engine->options().page_bytes, 1024);
  EXPECT_EQ(engine->options().prefill_chunk_rows, 32);  // what fits into a step
  EXPECT_EQ(engine->options().step_rows, 5);
}

class EngineBatch : public testing::TestWithParam<Machine> {
 protected:
  TinyModel tiny_ = make_tiny_model(GetParam().backend, GetParam().weights);
};

// Requests of all policies, lengths and kinds of sampling.
std::vector<std::shared_ptr<Request>> mixed_requests() {
  std::vector<std::shared_ptr<Request>> requests;
  const auto add = [&](int32_t prompt, int32_t answer, const PolicySpec& spec) {
    requests.push_back(make_request(random_prompt(prompt, static_cast<uint32_t>(requests.size())), answer, spec));
    return requests.back();
  };
  add(300, 20, policy(PolicyKind::kFull));
  add(301, 24, policy(PolicyKind::kSnapKv, 32));
  add(170, 17, policy(PolicyKind::kPyramidKv, 40));
  add(9, 30, policy(PolicyKind::kFull));
  auto warm = add(97, 25, policy(PolicyKind::kPyramidKv, 24));
  warm->sampling.temperature = 0.8f;
  warm->sampling.top_p = 0.9f;
  warm->sampling.seed = 11;
  PolicySpec wide = policy(PolicyKind::kSnapKv, 30);
  wide.kv_dtype = KvDtype::kF32;
  auto penalised = add(64, 28, wide);
  penalised->sampling.repetition_penalty = 1.3f;
  penalised->sampling.temperature = 1;
  penalised->sampling.seed = 12;
  add(1, 12, policy(PolicyKind::kSnapKv, 16));
  return requests;
}

TEST_P(EngineBatch, AloneAndTogetherTheAnswersAreTheSame) {
  std::vector<std::vector<TokenId>> alone;
  for (const auto& request : mixed_requests()) {
    const auto engine = make_engine(*tiny_.model);
    alone.push_back(run(*engine, request)->ids());
    EXPECT_EQ(static_cast<int32_t>(alone.back().size()), request->sampling.max_tokens);
  }

  const auto engine = make_engine(*tiny_.model);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (const auto& request : mixed_requests()) sinks.push_back(submit(*engine, request));
  for (size_t i = 0; i < sinks.size(); ++i) {
    sinks[i]->wait();
    EXPECT_EQ(sinks[i]->status, absl::OkStatus());
    EXPECT_EQ(sinks[i]->ids(), alone[i]) << "request " << i;
  }
  EXPECT_EQ(engine->stats()->live_bytes, 0u);
}

TEST_P(EngineBatch, AnswersDoNotDependOnHowManyRowsFitAStep) {
  EngineOptions narrow = small_options();
  narrow.step_tokens = 3;  // decode steps in several runs of the model, prefill units of three rows
  std::vector<std::vector<std::vector<TokenId>>> answers;
  for (const EngineOptions& options : {small_options(), narrow}) {
    const auto engine = make_engine(*tiny_.model, options);  // one after the other: a backend serves one engine
    EXPECT_EQ(engine->options().prefill_chunk_rows, options.step_tokens);
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (uint32_t i = 0; i < 8; ++i) {
      sinks.push_back(submit(*engine, make_request(random_prompt(12, i), 10, policy(PolicyKind::kFull))));
    }
    answers.emplace_back();
    for (const auto& sink : sinks) {
      sink->wait();
      answers.back().push_back(sink->ids());
    }
  }
  EXPECT_EQ(answers[0], answers[1]);
}

TEST_P(EngineBatch, ABudgetOfTheWholePromptIsBitIdenticalToFull) {
  const auto engine = make_engine(*tiny_.model);
  const auto score = [&](const PolicySpec& spec) {
    auto request = make_request(random_prompt(120, 5), 30, spec);
    request->logprobs = true;
    request->top_logprobs = 5;
    return run(*engine, request);
  };
  const auto full = score(policy(PolicyKind::kFull));
  for (const PolicyKind kind : {PolicyKind::kSnapKv, PolicyKind::kPyramidKv}) {
    for (const int64_t budget : {120, 5000}) {
      const auto other = score(policy(kind, budget));
      ASSERT_EQ(other->ids(), full->ids());
      for (size_t i = 0; i < full->tokens.size(); ++i) {
        EXPECT_EQ(other->tokens[i].logprob, full->tokens[i].logprob);
        EXPECT_EQ(other->tokens[i].top, full->tokens[i].top);
      }
      EXPECT_FALSE(other->result->cache.compressed);
    }
  }
}

TEST_P(EngineBatch, ASmallBudgetChangesTheAnswerButNotItsFirstToken) {
  const auto engine = make_engine(*tiny_.model);
  const auto answer = [&](const PolicySpec& spec) {
    auto request = make_request(random_prompt(400, 6), 40, spec);
    request->logprobs = true;
    return run(*engine, request);
  };
  const auto full = answer(policy(PolicyKind::kFull));
  const auto cut = answer(policy(PolicyKind::kSnapKv, 12));
  EXPECT_EQ(cut->tokens[0].id, full->tokens[0].id);
  EXPECT_EQ(cut->tokens[0].logprob, full->tokens[0].logprob);
  EXPECT_NE(cut->tokens[1].logprob, full->tokens[1].logprob);
}

TEST_P(EngineBatch, ScoringAnAnswerGivesTheLogprobsOfGeneratingIt) {
  const auto engine = make_engine(*tiny_.model);
  PolicySpec exact = policy(PolicyKind::kFull);
  exact.kv_dtype = KvDtype::kF32;
  auto request = make_request(random_prompt(70, 8), 20, exact);
  request->logprobs = true;
  const auto generated = run(*engine, request);

  std::vector<TokenId> whole = request->prompt;
  for (const TokenId id : generated->ids()) whole.push_back(id);
  auto scoring = make_request(whole, 0, exact);
  scoring->prompt_logprobs = true;
  scoring->top_logprobs = 1;
  const auto scored = run(*engine, scoring);
  ASSERT_EQ(scored->prompt_logprobs.size(), whole.size());
  EXPECT_EQ(scored->prompt_logprobs[0].logprob, 0);
  EXPECT_TRUE(scored->tokens.empty());
  EXPECT_EQ(scored->result->finish_reason, FinishReason::kLength);
  EXPECT_EQ(scored->result->completion_tokens, 0);
  // Quantised activations, which prefill and decode of the cpu backend may treat differently, leave differences.
  const float tolerance = GetParam().weights == WeightType::kF32 ? 1e-4f : 0.2f;
  for (size_t i = 0; i < 20; ++i) {
    const TokenLogprob& entry = scored->prompt_logprobs[70 + i];
    EXPECT_EQ(entry.id, whole[70 + i]);
    EXPECT_NEAR(entry.logprob, generated->tokens[i].logprob, tolerance) << i;
    if (GetParam().weights == WeightType::kF32) {
      EXPECT_EQ(entry.top.at(0).first, entry.id);  // it was greedy
    }
  }
}

TEST_P(EngineBatch, PromptLogprobsComeInOrderOverSeveralTilesAndWithAnAnswer) {
  const auto engine = make_engine(*tiny_.model);
  auto request = make_request(random_prompt(150, 9), 3, policy(PolicyKind::kSnapKv, 20));
  request->prompt_logprobs = true;
  const auto scored = run(*engine, request);
  ASSERT_EQ(scored->prompt_logprobs.size(), 150u);
  for (size_t i = 0; i < 150; ++i) {
    EXPECT_EQ(scored->prompt_logprobs[i].id, request->prompt[i]);
    if (i > 0) {
      EXPECT_LT(scored->prompt_logprobs[i].logprob, 0);
    }
  }
  // Asking for them changes nothing else.
  EXPECT_EQ(scored->ids(), run(*engine, make_request(request->prompt, 3, request->policy))->ids());
}

TEST_P(EngineBatch, DecodeStepsRunBetweenThePrefillUnitsOfALongPrompt) {
  const auto engine = make_engine(*tiny_.model);
  auto talking = std::make_shared<RecordingSink>();
  auto long_one = std::make_shared<RecordingSink>();
  Gate gate;
  int32_t tokens_during_prefill = 0;
  talking->at_token = [&](int32_t count) {
    if (count == 1) gate.pass();
    if (long_one->starts == 1 && long_one->tokens.empty()) ++tokens_during_prefill;
    return true;
  };
  submit(*engine, make_request(random_prompt(5, 1), 240), talking);
  gate.wait_for_guest();
  const auto request = make_request(random_prompt(640, 2), 1);
  submit(*engine, request, long_one);
  gate.open();
  talking->wait();
  long_one->wait();
  // 3 layers x 20 chunks of 32 rows at most are 60 units and more, with a decode step between any two; a step does at
  // least half of what it may.
  const int64_t work = engine->estimate(query_of(*request))->cost.prefill_work;
  const StepWork step(tiny_.model->shape(), engine->options());
  EXPECT_GE(tokens_during_prefill, 59);
  EXPECT_LE(tokens_during_prefill, 2 * work / step.least() + 1);
}

TEST_P(EngineBatch, AShortPromptOvertakesALongOne) {
  const auto engine = make_engine(*tiny_.model);
  auto first = std::make_shared<RecordingSink>(), long_one = std::make_shared<RecordingSink>(),
       short_one = std::make_shared<RecordingSink>();
  Gate gate;
  bool long_had_ended = false;
  first->at_token = [&](int32_t) {
    gate.pass();
    return true;
  };
  short_one->at_end = [&] { long_had_ended = long_one->ends > 0; };
  submit(*engine, make_request(random_prompt(3, 1), 1), first);
  gate.wait_for_guest();
  submit(*engine, make_request(random_prompt(640, 2), 1), long_one);
  submit(*engine, make_request(random_prompt(40, 3), 1), short_one);
  gate.open();
  short_one->wait();
  EXPECT_FALSE(long_had_ended);
  long_one->wait();
}

INSTANTIATE_TEST_SUITE_P(
    Machines, EngineBatch,
    testing::Values(Machine{"reference", {.device = "reference"}, WeightType::kF32},
                    Machine{"cpu_exact", {.device = "cpu", .exact = true, .threads = 2}, WeightType::kF32},
                    Machine{"cpu_quantised", {.device = "cpu", .threads = 2}, WeightType::kQ4_1}),
    [](const auto& machine) { return machine.param.name; });

}  // namespace
}  // namespace pkv::test
