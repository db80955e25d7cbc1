#include "server/api/server_state.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/api/errors.h"
#include "server/policy/registry.h"

namespace pkv {
namespace {

constexpr int kDeliveryThreads = 1;
constexpr int kBuildingThreads = 2;
constexpr int kLargePreparationThreads = 1;
constexpr size_t kUnbounded = std::numeric_limits<size_t>::max();  // one a call, and calls are bounded
constexpr absl::Duration kLoadingRetryDelay = absl::Seconds(1);

// How a generation call can end: refused by validation, whatever its policy, or submitted to the engine.
bool can_occur(std::string_view policy, std::string_view code) {
  // RESOURCE_EXHAUSTED: a key's limit, or the tokeniser ran out of memory over a chat; CANCELLED: the call ended before
  // its request came; DEADLINE_EXCEEDED: too little time was left for it; INTERNAL: a fault of the server, or its
  // engine has failed. Of those that were submitted INVALID_ARGUMENT: the answer grew too large for a reply.
  constexpr std::string_view kRefusals[] = {"INVALID_ARGUMENT",    "NOT_FOUND",       "RESOURCE_EXHAUSTED",
                                            "FAILED_PRECONDITION", "UNIMPLEMENTED",   "UNAVAILABLE",
                                            "CANCELLED",           "UNAUTHENTICATED", "PERMISSION_DENIED",
                                            "DEADLINE_EXCEEDED",   "INTERNAL"};
  constexpr std::string_view kEnds[] = {"OK",       "CANCELLED",   "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED",
                                        "INTERNAL", "UNAVAILABLE", "INVALID_ARGUMENT"};
  if (policy == kNoPolicy) return std::ranges::find(kRefusals, code) != std::end(kRefusals);
  // What never fits is refused by validation; a recall out of reach is known when the prompt has been read.
  if (code == "FAILED_PRECONDITION") return find_policy(policy)->observes_attention;
  return std::ranges::find(kEnds, code) != std::end(kEnds);
}

}  // namespace

RequestMetrics::Labels request_labels() {
  RequestMetrics::Labels labels{.codes = {status_code_names().begin(), status_code_names().end()},
                                .reasons = rejection_reasons(),
                                .can_occur = can_occur};
  for (const PolicyRow& row : policy_table()) labels.policies.push_back(row.name);
  return labels;
}

ServerState::ServerState(PolicyCatalog policies, const Log& log, uint64_t random_seed, const FrontLimits& limits)
    : metrics_(request_labels()),
      log_(log),
      random_(random_seed),
      waiting_(limits.max_waiting, limits.max_waiting_bytes, limits.max_waiting_tokens),
      building_(kBuildingThreads, kUnbounded),
      delivery_(kDeliveryThreads, kUnbounded),
      preparation_(limits.preparation_threads, limits.max_waiting),
      large_preparation_(kLargePreparationThreads, limits.max_waiting) {
  set_policies(std::move(policies));
  limits_.set(std::make_shared<const FrontLimits>(limits));
}

void ServerState::set_limits(const FrontLimits& limits) {
  limits_.set(std::make_shared<const FrontLimits>(limits));
  waiting_.set_limits(limits.max_waiting, limits.max_waiting_bytes, limits.max_waiting_tokens);
  preparation_.set_max_queued(limits.max_waiting);
  large_preparation_.set_max_queued(limits.max_waiting);
}

absl::StatusOr<const ServedModel*> ServerState::find_model(const std::string& id) const {
  const ServedModel* served = model();
  if (served == nullptr) {
    return make_error({.reason = kModelLoading,
                       .description = "the model is being loaded; try again later",
                       .retry_delay = kLoadingRetryDelay});
  }
  if (!id.empty() && id != served->id) {
    return not_found("model", absl::StrCat(shown(id), " is not served here, only \"", served->id, "\""));
  }
  return served;
}

}  // namespace pkv
