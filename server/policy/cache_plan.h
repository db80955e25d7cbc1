// From a request's policy, budget and lengths to what every lane may hold, before a token is read: one piece of code
// for admission, estimate and report.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "server/cache/kv_cache.h"
#include "server/policy/policy.h"

namespace pkv {

struct PlanInput {
  const CachePolicy& policy;
  const PolicySpec& spec;
  CacheGeometry geometry;
  int32_t q_heads = 0;
  int32_t prompt_tokens = 0;  // at least 1
  int32_t max_tokens = 0;     // generated at most; the last one is never written
};

// Pages, and allocated + auxiliary bytes of them and of the policies' state. Exact where every lane's entries are known
// at admission; where lanes share, of the division that needs most pages.
struct Footprint {
  uint64_t steady_pages = 0;  // after the prompt, growth included
  uint64_t peak_pages = 0;    // at any instant: during prefill what is kept so far plus one full layer; >= steady_pages
  uint64_t steady_bytes = 0;
  uint64_t peak_bytes = 0;
};

struct CachePlan {
  // Whether anything is ever dropped. Where nothing is, nothing is observed and no state is kept.
  bool drops_entries() const { return compresses || evicts_while_generating; }
  // Whether the lanes of a layer share shared_budgets[layer] by their scores when the prompt is done: each gets at
  // least smallest_lanes[layer] and at most its lane budget. In scope TOTAL what a lane got is its limit from then on.
  bool shares(int32_t layer) const { return !shared_budgets.empty() && shared_budgets[static_cast<size_t>(layer)] > 0; }
  // Whether the lanes of all layers share model_budget likewise.
  bool shares_model() const { return model_budget > 0; }

  KvDtype kv_dtype = KvDtype::kF16;   // of what is kept; a prompt is read with its prompt_format()
  int32_t budget_tokens = 0;          // B as resolved, at most the tokens there are
  int32_t window_tokens = 0;          // newest entries of every lane that are never evicted
  std::vector<TokenSpan> kept_spans;  // sinks and pins: ascending, disjoint
  std::vector<int32_t> lane_budgets;  // [layers * kv_heads] entries after the cut; with min_recall or sharing: at most
  std::vector<int32_t> lane_limits;   // [layers * kv_heads] entries at any time after the cut, likewise
  std::vector<int64_t> shared_budgets;   // [layers] entries of all lanes that share; 0: they do not. Empty: nowhere
  std::vector<int64_t> shared_limits;    // [layers] the same at any time after the cut
  std::vector<int32_t> smallest_lanes;   // [layers] entries of a lane that shares, at least. Empty: nowhere
  int64_t model_budget = 0;              // entries of all lanes of all layers, where they share; 0: they do not
  int64_t model_limit = 0;               // the same at any time after the prompt
  bool compresses = false;               // some lane is cut when the prompt is done
  bool evicts_while_generating = false;  // some lane reaches its limit before the last token is written
  bool cache_relative = false;           // positions end where the cache ends, and keys are moved for it
  int64_t positions_used = 0;            // by prompt and answer
  uint64_t state_bytes = 0;              // auxiliary bytes of what decides evictions, from the start to the end
  Footprint footprint;
  bool within_budget = true;  // false: not even the smallest budget keeps the request within the bytes asked for
  // By plan_cache(): the smallest budget with which the policy works on this request; 0: it takes none.
  int32_t smallest_budget_tokens = 0;
  uint64_t smallest_budget_bytes = 0;  // peak of the request with that one
};

// INVALID_ARGUMENT about the field (FieldError) for pins that are no spans of the prompt, or that the budget has no
// room for, and for a budget that the policy cannot work with.
absl::StatusOr<CachePlan> plan_cache(const PlanInput& input);

// The plan of the largest budget with which `fits`, and nothing where there is none. What a front-loaded policy holds
// grows with the budget, but for rounding, which is searched through; other policies are searched budget by budget.
// `input` as plan_cache() accepts it, its own budget is not looked at.
std::optional<CachePlan> largest_plan(const PlanInput& input, const std::function<bool(const CachePlan&)>& fits);

// What a request holds whose prompt of `prompt_tokens` goes through the lanes of `own`, `others` (a comparison's) being
// filled from its layers besides. Looks at their formats, lanes and state only; the plans' own figures are those of
// each alone.
Footprint cache_footprint(const CacheGeometry& geometry, int32_t prompt_tokens, const CachePlan& own,
                          std::span<const CachePlan* const> others = {});

}  // namespace pkv
