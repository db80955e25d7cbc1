#include "server/api/admission_check.h"

#include <map>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "server/api/errors.h"

namespace pkv {
namespace {

std::string describe_workspace(const Refusal& refusal) {
  if (refusal.workspace_bytes > refusal.workspace_limit_bytes) {
    return absl::StrCat("the prompt needs ", refusal.workspace_bytes, " bytes of workspace while it is read, and ",
                        refusal.workspace_limit_bytes, " is all there is (runtime.workspace_bytes)");
  }
  return absl::StrCat("the policy needs ", refusal.state_bytes,
                      " bytes for what decides its evictions and for penalties and biases of tokens, and the prompt ",
                      refusal.workspace_bytes, " bytes of workspace while it is read; ", refusal.workspace_limit_bytes,
                      " is all there is for both (runtime.workspace_bytes)");
}

std::string describe_pool(const Refusal& refusal) {
  const std::string text = absl::StrCat("the cache of this request would reach ", refusal.peak_bytes,
                                        " bytes, and the pool has ", refusal.pool_bytes);
  if (refusal.largest_budget_tokens > 0) {
    return absl::StrCat(text, "; a budget of at most ", refusal.largest_budget_tokens, " tokens would fit");
  }
  if (refusal.smallest_budget_tokens > 0) {
    return absl::StrCat(text, "; even the policy's smallest budget of ", refusal.smallest_budget_tokens,
                        " tokens would not fit");
  }
  return absl::StrCat(text, "; a policy that keeps less may fit");
}

std::map<std::string, std::string> figures_of(const Refusal& refusal) {
  std::map<std::string, std::string> figures = {
      {"peak_bytes", std::to_string(refusal.peak_bytes)},
      {"pool_bytes", std::to_string(refusal.pool_bytes)},
      {"workspace_bytes", std::to_string(refusal.workspace_bytes)},
      {"workspace_limit_bytes", std::to_string(refusal.workspace_limit_bytes)}};
  if (refusal.smallest_budget_tokens > 0) {
    figures["smallest_budget_tokens"] = std::to_string(refusal.smallest_budget_tokens);
    figures["smallest_budget_bytes"] = std::to_string(refusal.smallest_budget_bytes);
    figures["largest_budget_tokens"] = std::to_string(refusal.largest_budget_tokens);
  }
  return figures;
}

absl::Status never_fits(const Refusal& refusal, const std::string& field, const std::string& description) {
  return make_error(
      {.reason = kCacheNeverFits, .field = field, .description = description, .metadata = figures_of(refusal)});
}

// The baseline is a row, and each policy has one that follows its answer and one of its own.
absl::Status too_many_rows(const Refusal& refusal) {
  const uint64_t got = (refusal.rows - 1) / 2, max = (refusal.max_running - 1) / 2;
  const std::string way_out = max == 0 ? "it compares none" : absl::StrCat("name at most ", max);
  return make_error({.reason = kBadInput,
                     .field = "policies",
                     .description = absl::StrCat("are ", got, ", which run as ", refusal.rows,
                                                 " answers at once, and this server runs at most ", refusal.max_running,
                                                 " (scheduler.max_running): ", way_out),
                     .metadata = {{"max", std::to_string(max)}, {"got", std::to_string(got)}}});
}

}  // namespace

absl::Status context_too_long(const std::string& field, int64_t max, int64_t got, const std::string& description) {
  return make_error({.reason = kContextTooLong,
                     .field = field,
                     .description = description,
                     .metadata = {{"max", std::to_string(max)}, {"got", std::to_string(got)}}});
}

absl::Status refusal_error(const Refusal& refusal, const Contract::Query& query) {
  switch (refusal.reason) {
    case Refusal::Reason::kLength:
      return context_too_long(
          "sampling.max_tokens", static_cast<int64_t>(refusal.max_positions),
          int64_t{query.prompt_tokens} + query.max_tokens,
          absl::StrCat("a prompt of ", query.prompt_tokens, " tokens and max_tokens of ", query.max_tokens, " use ",
                       refusal.positions, " positions; the model has ", refusal.max_positions));
    case Refusal::Reason::kBudget: {
      const bool by_recall = query.policy.budget.kind == BudgetKind::kMinRecall;
      return never_fits(refusal, by_recall ? "cache_policy.budget.max_bytes" : "cache_policy.budget.bytes",
                        absl::StrCat("must be at least ", refusal.smallest_budget_bytes,
                                     " bytes for this request, which the policy holds with its smallest budget of ",
                                     refusal.smallest_budget_tokens, " tokens"));
    }
    case Refusal::Reason::kWorkspace:
      return never_fits(refusal, "", describe_workspace(refusal));
    case Refusal::Reason::kPool:
      return never_fits(refusal, "", describe_pool(refusal));
    case Refusal::Reason::kRows:
      return too_many_rows(refusal);
  }
  PKV_CHECK(false, "a refusal of no known kind");
}

absl::Status contract_error(const absl::Status& status, const Contract::Query& query) {
  const std::optional<Refusal> refusal = refusal_of(status);
  return refusal ? refusal_error(*refusal, query) : with_reason(status, kBadCachePolicy);
}

}  // namespace pkv
