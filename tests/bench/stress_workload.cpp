// Random policies, budgets and lengths.
#include "tests/bench/stress_workload.h"

#include <algorithm>
#include <iterator>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/bench/workload.h"
#include "kernels/check.h"
#include "server/policy/registry.h"
#include "tests/support/lane_table.h"

namespace pkv {
namespace {

class Maker {
 public:
  Maker(uint64_t seed, int64_t index, const WorkloadLimits& limits, const Engine& engine)
      : limits_(limits), engine_(engine), random_(seed, static_cast<uint64_t>(index)) {}

  StressRequest make(int64_t index) {
    StressRequest made{.request = std::make_shared<Request>()};
    Request& request = *made.request;
    request.id = absl::StrCat(index);
    const int32_t prompt = length(chance(70) ? limits_.max_prompt / 3 : limits_.max_prompt);
    for (int32_t i = 0; i < prompt; ++i) request.prompt.push_back(number(limits_.first_token, limits_.last_token));
    request.sampling.max_tokens = chance(3) ? 0 : length(chance(5) ? 3 * limits_.max_answer : limits_.max_answer);
    request.sampling.temperature = chance(50) ? 0.0f : 1.0f;
    request.sampling.seed = static_cast<uint64_t>(index);
    request.record_positions = true;
    request.prompt_logprobs = chance(3);
    request.policy = policy(request);
    if (chance(4) && request.sampling.max_tokens > 0) compare(request);
    made.asks_too_little = add_bytes(request);
    interrupt(made);
    return made;
  }

 private:
  int32_t number(int32_t from, int32_t to) { return static_cast<int32_t>(random_.number(from, to)); }
  bool chance(int32_t percent) { return random_.chance(percent); }
  int32_t length(int32_t longest) {
    return static_cast<int32_t>(client::LengthDistribution::uniform(1, longest).sample(random_));
  }

  static int32_t prompt_of(const Request& request) { return static_cast<int32_t>(request.prompt.size()); }

  PolicySpec policy(const Request& request) {
    const std::span<const PolicyRow> rows = policy_table();
    const PolicyRow& row = rows[client::WeightedChoice(std::vector<uint32_t>(rows.size(), 1)).sample(random_)];
    PolicySpec spec{.kind = row.kind, .lane_table = test::lane_table()};
    spec.kv_dtype = chance(40) ? KvDtype::kF16 : kEntryFormats.rows[number(0, 3)].id;
    for (int32_t pins = chance(20) ? number(1, 2) : 0; pins > 0; --pins) {
      const int32_t begin = number(0, prompt_of(request) - 1);
      spec.pins.push_back({begin, std::min(prompt_of(request), begin + number(1, 8))});
    }
    if (!row.takes_budget) return spec;
    set_parameters(spec);
    set_budget(request, row, spec);
    return spec;
  }

  void set_parameters(PolicySpec& spec) {
    PolicyParams& params = spec.params;
    params.window_tokens = number(1, 12);
    params.sink_tokens = number(0, 5);
    if (chance(50)) params.recent_tokens = number(1, 16);
    params.kernel_size = 1 + 2 * number(0, 3);
    params.pooling = static_cast<PoolKind>(number(0, 2));
    params.group_aggregation = static_cast<GroupReduce>(number(0, 2));
    params.beta_millionths = number(1'000'000, 40'000'000);
    params.floor_millionths = number(0, 1'000'000);
    params.observed_rows = number(1, 300);
    params.funnel_allocation = static_cast<FunnelAllocation>(number(0, 1));
    params.refit_values = params.funnel_allocation == FunnelAllocation::kTable && chance(20);
    params.h2o_score = static_cast<H2oScore>(number(0, 1));
    params.seed = static_cast<uint64_t>(number(0, 1 << 20));
    // With pins FACTORY's own table may leave no room, and positions relative to the cache are refused.
    if (!spec.pins.empty()) return;
    params.allocation = static_cast<PyramidAllocation>(number(0, 1));
    if (spec.kind == PolicyKind::kStreamingLlm) params.position_mode = static_cast<PositionMode>(number(0, 1));
  }

  void set_budget(const Request& request, const PolicyRow& row, PolicySpec& spec) {
    Budget& budget = spec.budget;
    budget.scope = static_cast<BudgetScope>(number(0, 1));
    budget.interval_tokens = number(1, 32);
    const int32_t kind = number(1, 100);
    if (kind <= 45) {
      budget.kind = BudgetKind::kTokens;
      budget.tokens = 2 * least(spec) + number(0, prompt_of(request));
    } else if (kind <= 65) {
      budget.kind = BudgetKind::kKeepRatio;
      budget.keep_ratio_millionths = number(1, kMillion);
    } else if (kind <= 85 || !row.observes_attention) {
      budget.kind = BudgetKind::kBytes;  // how many: add_bytes()
      budget.bytes = 1;
    } else {
      budget.kind = BudgetKind::kMinRecall;
      budget.scope = BudgetScope::kPrompt;
      budget.min_recall_millionths = number(1, kMillion);
      budget.max_bytes = chance(50) ? 1 : 0;
      budget.allow_shortfall = budget.max_bytes > 0 && chance(50);
      if (!spec.params.recent_tokens) spec.params.recent_tokens = 4;
    }
  }

  // More than the entries that are always kept; twice of it is enough for h2o, which keeps half of the budget.
  static int32_t least(const PolicySpec& spec) {
    int32_t entries =
        1 + std::max(spec.params.window_tokens, spec.params.recent_tokens.value_or(0)) + spec.params.sink_tokens;
    for (const TokenSpan& pin : spec.pins) entries += pin.end - pin.begin;
    return entries;
  }

  void compare(Request& request) {
    request.sampling.temperature = 0;
    for (int32_t rivals = number(1, 2); rivals > 0; --rivals) {
      request.compare_with.push_back(policy(request));
      KvDtype& format = request.compare_with.back().kv_dtype;
      if (prompt_format(format) != prompt_format(request.policy.kv_dtype)) format = request.policy.kv_dtype;
    }
  }

  // Budgets in bytes between too little by one and three times the least. Whether one of them is too little.
  bool add_bytes(Request& request) {
    bool too_little = false;
    const auto add = [&](PolicySpec& spec) {
      if (spec.budget.kind != BudgetKind::kBytes && spec.budget.max_bytes == 0) return;
      const auto contract = engine_.estimate(
          {.policy = spec, .prompt_tokens = prompt_of(request), .max_tokens = request.sampling.max_tokens});
      PKV_CHECK(contract.ok(), contract.status().ToString().c_str());
      const uint64_t smallest = contract->own.plan.smallest_budget_bytes;
      uint64_t bytes = smallest * static_cast<uint64_t>(number(1000, 3000)) / 1000;
      if (chance(5)) {
        bytes = smallest - 1;
        too_little = true;
      }
      (spec.budget.kind == BudgetKind::kBytes ? spec.budget.bytes : spec.budget.max_bytes) = bytes;
    };
    add(request.policy);
    for (PolicySpec& rival : request.compare_with) add(rival);
    return too_little;
  }

  void interrupt(StressRequest& made) {
    constexpr Interruption kKinds[] = {Interruption::kCancelAtOnce, Interruption::kCancelAtStart,
                                       Interruption::kCancelAtToken, Interruption::kStopAtToken};
    if (!chance(20)) return;
    made.interruption = kKinds[number(0, static_cast<int32_t>(std::size(kKinds)) - 1)];
    made.at_token = number(1, std::max(1, made.request->sampling.max_tokens));
  }

  const WorkloadLimits& limits_;
  const Engine& engine_;
  client::WorkloadRandom random_;
};

}  // namespace

StressRequest make_stress_request(uint64_t seed, int64_t index, const WorkloadLimits& limits, const Engine& engine) {
  return Maker(seed, index, limits, engine).make(index);
}

}  // namespace pkv
