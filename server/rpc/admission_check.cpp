// Whether the contract of a request can ever be kept, asked before it is submitted, and the figures where it cannot.
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/rpc/errors.h"
#include "server/rpc/validation.h"

namespace pkv {
namespace {

std::string describe_misfit(const Admission& figures) {
  if (figures.workspace_bytes > figures.workspace_limit_bytes) {
    return absl::StrCat("the prompt needs ", figures.workspace_bytes, " bytes of workspace while it is read, and ",
                        figures.workspace_limit_bytes, " is all there is (runtime.workspace_bytes)");
  }
  const std::string text = absl::StrCat("the cache of this request would reach ", figures.peak_bytes,
                                        " bytes, and the pool has ", figures.pool_bytes);
  if (figures.largest_budget_tokens > 0) {
    return absl::StrCat(text, "; a budget of at most ", figures.largest_budget_tokens, " tokens would fit");
  }
  if (figures.smallest_budget_tokens > 0) {
    return absl::StrCat(text, "; even the policy's smallest budget of ", figures.smallest_budget_tokens,
                        " tokens would not fit");
  }
  return absl::StrCat(text, "; a policy that keeps less may fit");
}

std::map<std::string, std::string> figures_of(const Admission& admission) {
  std::map<std::string, std::string> figures = {
      {"peak_bytes", std::to_string(admission.peak_bytes)},
      {"pool_bytes", std::to_string(admission.pool_bytes)},
      {"workspace_bytes", std::to_string(admission.workspace_bytes)},
      {"workspace_limit_bytes", std::to_string(admission.workspace_limit_bytes)}};
  if (admission.smallest_budget_tokens > 0) {
    figures["smallest_budget_tokens"] = std::to_string(admission.smallest_budget_tokens);
    figures["smallest_budget_bytes"] = std::to_string(admission.smallest_budget_bytes);
    figures["largest_budget_tokens"] = std::to_string(admission.largest_budget_tokens);
  }
  return figures;
}

}  // namespace

absl::Status context_too_long(const std::string& field, int64_t max, int64_t got, const std::string& description) {
  return make_error({.reason = kContextTooLong,
                     .field = field,
                     .description = description,
                     .metadata = {{"max", std::to_string(max)}, {"got", std::to_string(got)}}});
}

absl::StatusOr<Admission> ask_engine(const Engine::Query& query, const ServedModel& served) {
  absl::StatusOr<Admission> admission = served.engine->check(query);
  if (admission.ok()) return admission;
  const NamedField named = split_field(admission.status());
  if (named.field != "sampling.max_tokens") return with_reason(admission.status(), kBadCachePolicy);
  return context_too_long(named.field, served.shape.max_positions, int64_t{query.prompt_tokens} + query.max_tokens,
                          named.description);
}

absl::Status admission_error(const Admission& admission, const PolicySpec& policy) {
  ErrorDetail detail{
      .code = absl::StatusCode::kFailedPrecondition, .reason = kCacheNeverFits, .metadata = figures_of(admission)};
  if (!admission.within_budget) {
    const bool by_recall = policy.budget.kind == BudgetKind::kMinRecall;
    detail.field = by_recall ? "cache_policy.budget.max_bytes" : "cache_policy.budget.bytes";
    detail.description = absl::StrCat("must be at least ", admission.smallest_budget_bytes,
                                      " bytes for this request, which the policy holds with its smallest budget of ",
                                      admission.smallest_budget_tokens, " tokens");
  } else if (!admission.admissible_ever) {
    detail.description = describe_misfit(admission);
  } else {
    return absl::OkStatus();
  }
  return make_error(detail);
}

absl::Status check_admission(const Request& request, const ServedModel& served) {
  const absl::StatusOr<Admission> admission = ask_engine({.policy = request.policy,
                                                          .prompt_tokens = static_cast<int32_t>(request.prompt.size()),
                                                          .max_tokens = request.sampling.max_tokens,
                                                          .compare_with = request.compare_with},
                                                         served);
  return admission.ok() ? admission_error(*admission, request.policy) : admission.status();
}

}  // namespace pkv
