// What a request is promised, over random shapes, lengths, budgets and mixtures of policies: budgets, what is never
// evicted, bytes, and answers that depend on nothing but the request.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/policy/recall_shortfall.h"
#include "server/policy/registry.h"
#include "tests/support/lane_table.h"
#include "tests/support/report_check.h"
#include "tests/support/shaped_policy.h"
#include "tests/support/tested_backend.h"
#include "tests/unit/engine/engine_fixture.h"

namespace pkv::test {
namespace {

constexpr std::array kBudgeted = {PolicyKind::kStreamingLlm, PolicyKind::kH2o,    PolicyKind::kSnapKv,
                                  PolicyKind::kPyramidKv,    PolicyKind::kL2Norm, PolicyKind::kTova,
                                  PolicyKind::kKeyDiff,      PolicyKind::kRandom, PolicyKind::kAdaSnapKv,
                                  PolicyKind::kAdaPyramidKv, PolicyKind::kFunnel};

TinyModel make_model(const TinyModelOptions& options, const BackendOptions& backend = {.device = "reference"}) {
  TinyModel tiny{.backend = backend.device == "reference" ? make_tested_backend() : *make_backend(backend)};
  tiny.file = std::make_unique<TempFile>(make_tiny_llama(options));
  tiny.gguf = *GgufFile::open(tiny.file->path());
  tiny.model = *load_model(*tiny.gguf, *tiny.backend);
  return tiny;
}

PolicySpec scoped(PolicySpec spec, BudgetScope scope) {
  spec.budget.scope = scope;
  return spec;
}

PolicySpec byte_budget(PolicySpec spec, uint64_t bytes) {
  spec.budget = {.kind = BudgetKind::kBytes, .bytes = bytes, .scope = spec.budget.scope};
  return spec;
}

Contract promise(const Engine& engine, const Request& request) {
  auto contract = engine.estimate(query_of(request));
  EXPECT_TRUE(contract.ok()) << contract.status();
  return *std::move(contract);
}

class RandomRequests {
 public:
  explicit RandomRequests(uint32_t seed) : rng_(seed) {}

  int32_t number(int32_t from, int32_t to) { return std::uniform_int_distribution<int32_t>(from, to)(rng_); }

  PolicySpec spec(PolicyKind kind, int32_t prompt) {
    PolicySpec spec{.kind = kind, .lane_table = test::lane_table()};
    spec.kv_dtype = kEntryFormats.rows[number(0, 3)].id;
    for (int32_t pins = number(-1, 2); pins > 0; --pins) {
      const int32_t begin = number(0, prompt - 1);
      spec.pins.push_back({begin, std::min(prompt, begin + number(1, 6))});
    }
    if (kind == PolicyKind::kFull) return spec;
    spec.params.window_tokens = number(1, 8);
    spec.params.sink_tokens = number(0, 4);
    if (number(0, 1) == 0) spec.params.recent_tokens = number(1, 12);
    spec.params.kernel_size = 1 + 2 * number(0, 3);
    spec.params.group_aggregation = static_cast<GroupReduce>(number(0, 2));
    spec.params.beta_millionths = number(1, 30) * kMillion;
    spec.params.floor_millionths = number(0, 10) * kMillion / 10;
    spec.params.observed_rows = number(1, 20);
    spec.params.funnel_allocation = static_cast<FunnelAllocation>(number(0, 1));
    if (kind == PolicyKind::kFunnel && spec.params.funnel_allocation == FunnelAllocation::kTable) {
      spec.params.refit_values = number(0, 1) == 1;
    }
    spec.params.h2o_score = static_cast<H2oScore>(number(0, 1));
    spec.params.seed = static_cast<uint64_t>(number(0, 1000));
    if (spec.pins.empty()) {  // with them a rule of its own may leave no room, and positions may not move
      spec.params.allocation = static_cast<PyramidAllocation>(number(0, 1));
      spec.params.position_mode = static_cast<PositionMode>(number(0, 1));
    }
    spec.budget = {.interval_tokens = number(1, 20)};
    spec.budget.scope = static_cast<BudgetScope>(number(0, 1));
    if (number(0, 3) == 0) {
      spec.budget.kind = BudgetKind::kKeepRatio;
      spec.budget.keep_ratio_millionths = number(50'000, 1'000'000);
    } else {
      spec.budget.kind = BudgetKind::kTokens;
      spec.budget.tokens = number(37, prompt + 60);  // above window, sinks and pins, half of it included for h2o
    }
    return spec;
  }

  std::shared_ptr<Request> request(PolicyKind kind) {
    const int32_t prompt = number(1, 200);
    auto made = make_request(random_prompt(prompt, rng_()), number(1, 50), spec(kind, prompt));
    made->record_positions = true;
    return made;
  }

 private:
  std::mt19937 rng_;
};

// Whatever division of a budget among lanes.
class EngineContract : public testing::TestWithParam<LaneShape> {
 protected:
  EngineOptions shaped(EngineOptions options = small_options()) const {
    options.make_policy = shaped_policies(GetParam());
    return options;
  }
};

std::vector<std::string> violations(const Engine& engine, const Model& model, const Request& request,
                                    const CacheReport& report, LaneShape shape) {
  const Contract promised = promise(engine, request);
  return report_violations({.shape = model.shape(),
                            .page_bytes = engine.options().page_bytes,
                            .spec = request.policy,
                            .prompt_tokens = static_cast<int32_t>(request.prompt.size()),
                            .promised = promised,
                            .own_division = shape == LaneShape::kOwn},
                           report);
}

TEST_P(EngineContract, EveryPolicyKeepsWhatItPromisesInAnyMixture) {
  RandomRequests random(20240601);
  for (const TinyModelOptions& shape :
       {TinyModelOptions{.layers = 4}, TinyModelOptions{.layers = 1, .q_heads = 3, .kv_heads = 3, .head_dim = 32},
        TinyModelOptions{.layers = 7, .q_heads = 4, .kv_heads = 1, .head_dim = 8, .width = 32, .feed_forward = 32}}) {
    const TinyModel tiny = make_model(shape, {.device = "cpu", .threads = 1});
    EngineOptions options = shaped();
    options.pool_bytes = 4096 * 512;
    const auto engine = make_engine(*tiny.model, options);
    std::vector<std::shared_ptr<Request>> requests;
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (size_t i = 0; i < 7 * (kBudgeted.size() + 1); ++i) {
      const size_t row = i % (kBudgeted.size() + 1);
      const auto kind = row == kBudgeted.size() ? PolicyKind::kFull : kBudgeted[row];
      requests.push_back(random.request(kind));
      sinks.push_back(submit(*engine, requests.back()));
    }
    int32_t compressed = 0, uneven = 0;
    for (size_t i = 0; i < sinks.size(); ++i) {
      const Request& request = *requests[i];
      SCOPED_TRACE(absl::StrCat("request ", i, ": ", std::string(policy_row(request.policy.kind).name), " of ",
                                request.prompt.size(), " tokens"));
      sinks[i]->wait();
      ASSERT_EQ(sinks[i]->status, absl::OkStatus());
      const CacheReport& report = sinks[i]->result->cache;
      EXPECT_THAT(violations(*engine, *tiny.model, request, report, GetParam()), testing::IsEmpty());
      compressed += report.compressed ? 1 : 0;
      for (const LayerOutcome& layer : report.layers) {
        uneven += std::adjacent_find(layer.kept.begin(), layer.kept.end(), std::not_equal_to<>()) != layer.kept.end();
      }
    }
    EXPECT_GT(compressed, 20);
    if (GetParam() != LaneShape::kOwn && shape.kv_heads > 1) {
      EXPECT_GT(uneven, 10);
    }
    const EngineStats stats = *engine->stats();
    EXPECT_EQ(stats.live_bytes, 0u);
    EXPECT_EQ(stats.cache.auxiliary, 0u);
  }
}

TEST_P(EngineContract, ByteBudgetsHoldFromTheSmallestOn) {
  const TinyModel tiny = make_tiny_model({.device = "cpu", .threads = 1});
  const auto engine = make_engine(*tiny.model, shaped());
  for (const PolicyKind kind : kBudgeted) {
    for (const BudgetScope scope : {BudgetScope::kPrompt, BudgetScope::kTotal}) {
      for (const PyramidAllocation allocation : {PyramidAllocation::kExact, PyramidAllocation::kFactory}) {
        const bool second = allocation == PyramidAllocation::kFactory;  // of the two divisions that some policies have
        if (second && kind != PolicyKind::kPyramidKv && kind != PolicyKind::kFunnel) continue;
        SCOPED_TRACE(absl::StrCat(std::string(policy_row(kind).name), " scope ", static_cast<int>(scope)));
        PolicySpec spec = scoped({.kind = kind, .lane_table = test::lane_table()}, scope);
        spec.params.allocation = allocation;
        spec.params.funnel_allocation = second ? FunnelAllocation::kGlobal : FunnelAllocation::kTable;
        spec.pins = {{20, 25}};
        const auto of = [&](uint64_t bytes) {
          return make_request(random_prompt(120, 4), 30, byte_budget(spec, bytes));
        };
        const uint64_t smallest = promise(*engine, *of(1)).own.plan.smallest_budget_bytes;
        EXPECT_FALSE(promise(*engine, *of(smallest - 1)).own.plan.within_budget);
        const absl::Status refused = engine->prepare(of(smallest - 1)).status();
        EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
        const std::optional<Refusal> refusal = refusal_of(refused);
        ASSERT_TRUE(refusal) << refused;
        EXPECT_EQ(refusal->reason, Refusal::Reason::kBudget);
        EXPECT_EQ(refusal->smallest_budget_bytes, smallest);
        const uint64_t everything = promise(*engine, *make_request(random_prompt(120, 4), 30)).peak_bytes;
        for (const uint64_t bytes : {smallest, smallest + 1, smallest * 9 / 8, smallest * 3 / 2, everything}) {
          const auto request = of(bytes);
          const Contract promised = promise(*engine, *request);
          EXPECT_LE(promised.peak_bytes, bytes);
          const auto sink = run(*engine, request);
          ASSERT_EQ(sink->status, absl::OkStatus());
          EXPECT_LE(sink->result->cache.bytes.peak, bytes);
          // It is the largest budget that does.
          for (int32_t more = promised.own.plan.budget_tokens + 1; more <= 150; ++more) {
            PolicySpec larger = spec;
            larger.budget = {.kind = BudgetKind::kTokens, .tokens = more, .scope = scope};
            const auto other =
                engine->estimate({.policy = larger, .prompt_tokens = 120, .max_tokens = 30, .compare_with = {}});
            if (!other.ok() || other->own.plan.budget_tokens <= promised.own.plan.budget_tokens)
              continue;  // no room for the pins
            EXPECT_GT(other->peak_bytes, bytes) << more << " beside " << promised.own.plan.budget_tokens;
          }
        }
      }
    }
  }
}

TEST_P(EngineContract, ABudgetOfEverythingIsBitIdenticalToFull) {
  const TinyModel tiny = make_tiny_model({.device = "cpu", .threads = 1}, WeightType::kQ4_1);
  const auto engine = make_engine(*tiny.model, shaped());
  const auto answer = [&](const PolicySpec& spec) {
    auto request = make_request(random_prompt(90, 5), 25, spec);
    request->logprobs = true;
    request->top_logprobs = 4;
    return run(*engine, request);
  };
  const auto full = answer({});
  for (const PolicyKind kind : kBudgeted) {
    for (const PolicySpec& spec :
         {policy(kind, 90), policy(kind, 5000), scoped(policy(kind, 115), BudgetScope::kTotal),
          scoped(policy(kind, 5000), BudgetScope::kTotal),
          scoped(byte_budget({.kind = kind, .lane_table = test::lane_table()}, 1 << 30), BudgetScope::kTotal)}) {
      const auto other = answer(spec);
      EXPECT_EQ(other->ids(), full->ids());
      for (size_t i = 0; i < full->tokens.size(); ++i) {
        EXPECT_EQ(other->tokens[i].logprob, full->tokens[i].logprob);
        EXPECT_EQ(other->tokens[i].top, full->tokens[i].top);
      }
      EXPECT_FALSE(other->result->cache.compressed);
    }
  }
}

TEST_P(EngineContract, AloneAndTogetherEveryPolicyAnswersTheSame) {
  for (const BackendOptions& backend :
       {BackendOptions{.device = "reference"}, BackendOptions{.device = "cpu", .threads = 2}}) {
    const TinyModel tiny = make_tiny_model(backend, WeightType::kQ4_1);
    std::vector<std::shared_ptr<Request>> requests;
    RandomRequests random(77);
    for (const BudgetScope scope : {BudgetScope::kPrompt, BudgetScope::kTotal}) {
      for (const PolicyKind kind : kBudgeted) {
        PolicySpec spec = scoped(policy(kind, 40), scope);
        spec.budget.interval_tokens = 8;
        if (requests.size() % 2 == 1) spec.params.funnel_allocation = FunnelAllocation::kGlobal;
        spec.params.position_mode = requests.size() % 16 == 8 ? PositionMode::kCacheRelative : PositionMode::kOriginal;
        requests.push_back(
            make_request(random_prompt(random.number(20, 120), static_cast<uint32_t>(requests.size())), 50, spec));
        requests.back()->logprobs = true;
      }
    }
    const auto answers = [&](bool together) {
      const auto engine = make_engine(*tiny.model, shaped());
      std::vector<std::shared_ptr<RecordingSink>> sinks;
      for (const auto& request : requests) {
        sinks.push_back(submit(*engine, request));
        if (!together) sinks.back()->wait();
      }
      std::vector<std::pair<TokenId, float>> tokens;
      for (const auto& sink : sinks) {
        sink->wait();
        for (const TokenLogprob& token : sink->tokens) tokens.emplace_back(token.id, token.logprob);
      }
      return tokens;
    };
    EXPECT_EQ(answers(true), answers(false));
  }
}

TEST_P(EngineContract, EveryLaneReachesTheRecallAskedForOrTheRequestSaysWhyNot) {
  const TinyModel tiny = make_tiny_model({.device = "cpu", .threads = 1});
  const auto engine = make_engine(*tiny.model, shaped());
  for (const PolicyKind kind : {PolicyKind::kH2o, PolicyKind::kSnapKv, PolicyKind::kPyramidKv, PolicyKind::kTova,
                                PolicyKind::kAdaSnapKv, PolicyKind::kFunnel}) {
    SCOPED_TRACE(std::string(policy_row(kind).name));
    PolicySpec spec{.kind = kind, .lane_table = test::lane_table()};
    spec.params.recent_tokens = 8;
    int32_t kept_before = 0;
    for (const int64_t recall : {300'000, 800'000, 990'000, 1'000'000}) {
      spec.budget = {.kind = BudgetKind::kMinRecall, .min_recall_millionths = recall};
      const auto sink = run(*engine, make_request(random_prompt(200, 3), 10, spec));
      ASSERT_EQ(sink->status, absl::OkStatus());
      for (const LayerOutcome& layer : sink->result->cache.layers) {
        for (const double reached : layer.recall) EXPECT_GE(reached, static_cast<double>(recall) / kMillion);
      }
      EXPECT_GE(sink->result->cache.budget_tokens, kept_before);
      kept_before = sink->result->cache.budget_tokens;
    }
    spec.budget.min_recall_millionths = 990'000;
    spec.budget.max_bytes = 1;
    const uint64_t least =
        promise(*engine, *make_request(random_prompt(200, 3), 10, spec)).own.plan.smallest_budget_bytes;
    spec.budget.max_bytes = least + 4096;
    auto failed = run(*engine, make_request(random_prompt(200, 3), 10, spec));
    const auto shortfall = recall_shortfall(failed->status);
    ASSERT_TRUE(shortfall.has_value()) << failed->status;
    EXPECT_GT(shortfall->reached, 0);
    EXPECT_LT(shortfall->reached, 0.99);
    EXPECT_EQ(engine->stats()->live_bytes, 0u);

    spec.budget.allow_shortfall = true;
    const auto served = run(*engine, make_request(random_prompt(200, 3), 10, spec));
    ASSERT_EQ(served->status, absl::OkStatus());
    EXPECT_LE(served->result->cache.bytes.peak, spec.budget.max_bytes);
    const std::vector<double>& recall = served->result->cache.layers[static_cast<size_t>(shortfall->layer)].recall;
    EXPECT_THAT(recall, testing::Contains(testing::DoubleNear(shortfall->reached, 1e-5)));
  }
}

TEST_P(EngineContract, LongAnswersRunUnderAConstantCeiling) {
  const int32_t tokens = GetParam() == LaneShape::kOwn ? 32 * 1024 : 4 * 1024;
  const TinyModel tiny = make_model({.layers = 2, .context = tokens + 64}, {.device = "cpu", .threads = 1});
  const auto engine = make_engine(*tiny.model, shaped(watched_options()));
  for (const PolicyKind kind : kBudgeted) {
    SCOPED_TRACE(std::string(policy_row(kind).name));
    const auto request = make_request(random_prompt(50, 9), tokens, scoped(policy(kind, 32), BudgetScope::kTotal));
    request->record_positions = true;
    const Contract promised = promise(*engine, *request);
    auto sink = std::make_shared<RecordingSink>();
    uint64_t highest = 0;
    sink->at_token = [&](int32_t count) {
      const CacheBytes now = engine->stats()->cache;
      if (count > 2) highest = std::max(highest, now.allocated + now.auxiliary);
      return true;
    };
    submit(*engine, request, sink)->wait();
    ASSERT_EQ(sink->status, absl::OkStatus());
    EXPECT_EQ(sink->tokens.size(), static_cast<size_t>(tokens));
    if (!promised.own.plan.shared_budgets.empty()) {
      EXPECT_LE(highest, promised.steady_bytes);  // pages of the division that needs most
    } else {
      EXPECT_EQ(highest, promised.steady_bytes);
    }
    EXPECT_THAT(violations(*engine, *tiny.model, *request, sink->result->cache, GetParam()), testing::IsEmpty());
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, EngineContract, testing::ValuesIn(kLaneShapes),
                         [](const auto& shape) { return name_of(shape.param); });

// In a model of one layer keys and values depend on their tokens alone, so a sliding cache with positions of its own is
// the same as reading sinks and newest tokens as a text of their own.
TEST(EngineContractOfPositions, RelativeToTheCacheAreThoseOfATextOfWhatIsHeld) {
  const TinyModel tiny = make_model({.layers = 1, .context = 64});
  const auto engine = make_engine(*tiny.model);
  for (const BudgetScope scope : {BudgetScope::kTotal, BudgetScope::kPrompt}) {
    const bool total = scope == BudgetScope::kTotal;
    PolicySpec spec = scoped(policy(PolicyKind::kStreamingLlm, 24), scope);
    spec.kv_dtype = KvDtype::kF32;
    spec.params.position_mode = PositionMode::kCacheRelative;
    spec.params.sink_tokens = 3;
    const auto request = make_request(random_prompt(40, 6), total ? 200 : 40, spec);
    request->logprobs = true;
    const auto sliding = run(*engine, request);
    ASSERT_EQ(sliding->status, absl::OkStatus());
    ASSERT_EQ(sliding->tokens.size(), total ? 200u : 40u);  // beyond the model's length of 64

    std::vector<TokenId> text = request->prompt;
    for (size_t i = 0; i < sliding->tokens.size(); ++i) {
      if (i > 0) {
        const auto held = static_cast<std::ptrdiff_t>(total ? 24 : 24 + i);
        std::vector<TokenId> window(text.begin(), text.begin() + 3);
        window.insert(window.end(), text.end() - (held - 3), text.end());
        auto fresh = make_request(window, 1);
        fresh->policy.kv_dtype = KvDtype::kF32;
        fresh->logprobs = true;
        const auto oracle = run(*engine, fresh);
        ASSERT_EQ(oracle->tokens[0].id, sliding->tokens[i].id) << i;
        ASSERT_NEAR(oracle->tokens[0].logprob, sliding->tokens[i].logprob, 2e-4) << i;
      }
      text.push_back(sliding->tokens[i].id);
    }
  }
}

TEST(EngineContractOfPositions, RelativeToTheCacheChangeNothingBeforeTheFirstEviction) {
  const TinyModel tiny = make_model({.layers = 3, .context = 96});
  const auto engine = make_engine(*tiny.model);
  PolicySpec spec = scoped(policy(PolicyKind::kStreamingLlm, 64), BudgetScope::kTotal);
  const auto original = run(*engine, make_request(random_prompt(40, 6), 56, spec));
  spec.params.position_mode = PositionMode::kCacheRelative;
  const auto relative = run(*engine, make_request(random_prompt(40, 6), 400, spec));
  ASSERT_EQ(original->status, absl::OkStatus());
  ASSERT_EQ(relative->status, absl::OkStatus());
  ASSERT_EQ(relative->tokens.size(), 400u);
  // The 64 entries are there when token 24 has been written, which token 25 follows.
  for (size_t i = 0; i < 25; ++i) EXPECT_EQ(relative->tokens[i].id, original->tokens[i].id);
}

}  // namespace
}  // namespace pkv::test
