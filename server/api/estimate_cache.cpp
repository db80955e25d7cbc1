#include "server/api/estimate_cache.h"

#include <span>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "server/api/admission_check.h"
#include "server/api/conversion.h"
#include "server/api/errors.h"
#include "server/api/validation.h"
#include "server/engine/engine.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

absl::Status check_lengths(const pb::EstimateCacheRequest& message, const PolicySpec& spec, int32_t max_positions) {
  const int64_t prompt = message.prompt_tokens(), total = prompt + message.max_tokens();
  if (prompt == 0) return bad_input("prompt_tokens", "must be at least 1");
  if (prompt > max_positions) {
    return context_too_long("prompt_tokens", max_positions, prompt,
                            absl::StrCat("must be at most the model's length of ", max_positions));
  }
  if (total > longest_text(spec, max_positions)) {
    return context_too_long("max_tokens", max_positions, total,
                            absl::StrCat("a prompt of ", prompt, " tokens and ", message.max_tokens(),
                                         " more are beyond the model's length of ", max_positions));
  }
  return absl::OkStatus();
}

void set_figures(const Contract& contract, int32_t kv_heads, pb::EstimateCacheResponse& out) {
  const CachePlan& plan = contract.own.plan;
  out.set_full_bytes(contract.full_bytes);
  out.set_peak_bytes(contract.peak_bytes);
  out.set_steady_bytes(contract.steady_bytes);
  out.set_workspace_bytes(contract.cost.workspace_bytes);
  out.set_admissible_ever(!contract.refusal);
  out.set_budget_tokens(static_cast<uint32_t>(plan.budget_tokens));
  out.set_smallest_budget_bytes(plan.smallest_budget_bytes);
  out.set_smallest_budget_tokens(static_cast<uint32_t>(plan.smallest_budget_tokens));
  if (contract.refusal) out.set_largest_budget_tokens(static_cast<uint32_t>(contract.refusal->largest_budget_tokens));
  const std::span<const int32_t> lanes = plan.lane_budgets;
  const auto heads = static_cast<size_t>(kv_heads);
  for (size_t first = 0; first + heads <= lanes.size(); first += heads) {
    pb::LayerCache& layer = *out.add_layers();
    layer.set_layer(static_cast<uint32_t>(first / heads));
    set_kept(lanes.subspan(first, heads), layer);
    layer.set_budget_tokens(layer.kept_max());
    const bool shares = plan.shares(static_cast<int32_t>(first / heads));
    if (!shares && !plan.shares_model()) continue;
    // What a lane gets is decided by its scores; what a layer gets, where all layers share, too.
    layer.set_kept_min(static_cast<uint32_t>(plan.smallest_lanes[first / heads]));
    layer.set_kept_mean(shares ? static_cast<double>(plan.shared_budgets[first / heads]) / kv_heads
                               : static_cast<double>(plan.model_budget) / static_cast<double>(lanes.size()));
  }
}

}  // namespace

absl::Status estimate_cache(const pb::EstimateCacheRequest& message, const ServedModel& served,
                            const PolicyCatalog& policies, pb::EstimateCacheResponse& response) {
  PKV_ASSIGN_OR_RETURN(const PolicySpec spec, policies.resolve(message.cache_policy()));
  if (spec.pin_system_message) {
    return bad_cache_policy("cache_policy.pin_system_message", "needs chat input; give the message's span as a pin");
  }
  PKV_RETURN_IF_ERROR(check_lengths(message, spec, served.shape.max_positions));
  const Contract::Query query{.policy = spec,
                              .prompt_tokens = static_cast<int32_t>(message.prompt_tokens()),
                              .max_tokens = static_cast<int32_t>(message.max_tokens())};
  const absl::StatusOr<Contract> contract = served.engine->estimate(query);
  if (!contract.ok()) return with_field_moved(contract_error(contract.status(), query), "sampling.", "");
  *response.mutable_effective_policy() = to_proto(spec);
  set_figures(*contract, served.shape.kv_heads, response);
  response.set_admissible_now(served.engine->has_room(*contract));
  return absl::OkStatus();
}

}  // namespace pkv
