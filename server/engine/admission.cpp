// The arithmetic of contracts: footprint, workspace, and the budgets that would fit.
#include "server/engine/admission.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace pkv {

Footprint AdmissionRules::footprint(const CachePolicy& policy, KvDtype dtype, int32_t prompt_tokens,
                                    int32_t max_tokens) const {
  const std::vector<int32_t> budgets = policy.lane_budgets(prompt_tokens, geometry_);
  return cache_footprint({.geometry = geometry_,
                          .dtype = dtype,
                          .prompt_tokens = prompt_tokens,
                          .max_tokens = max_tokens,
                          .lane_budgets = budgets});
}

// The residual stream [n, D], and per observed row its queries [Hq * d] and their log-sum-exp [Hq].
uint64_t AdmissionRules::workspace_bytes(const CachePolicy& policy, int32_t prompt_tokens) const {
  uint64_t floats = static_cast<uint64_t>(prompt_tokens) * static_cast<uint64_t>(shape_.width);
  const std::vector<int32_t> budgets = policy.lane_budgets(prompt_tokens, geometry_);
  if (std::any_of(budgets.begin(), budgets.end(), [&](int32_t kept) { return kept < prompt_tokens; })) {
    const auto row = static_cast<uint64_t>(shape_.q_heads) * static_cast<uint64_t>(shape_.head_dim + 1);
    floats += policy.observe(prompt_tokens).size() * row;
  }
  return floats * sizeof(float);
}

// The largest budget in tokens with which the request would fit, 0: none. What is held grows with the budget.
int32_t AdmissionRules::largest_budget(const PolicySpec& spec, int32_t smallest, int32_t prompt_tokens,
                                       int32_t max_tokens) const {
  const auto fits = [&](int32_t tokens) {
    PolicySpec changed = spec;
    changed.budget = {.kind = BudgetKind::kTokens, .tokens = tokens};
    const auto policy = make_policy(changed);
    return policy.ok() &&
           footprint(**policy, spec.kv_dtype, prompt_tokens, max_tokens).peak_pages <= limits_.pool_pages;
  };
  if (!fits(smallest)) return 0;
  int32_t good = smallest, bad = std::max(smallest, prompt_tokens) + 1;
  while (bad - good > 1) {
    const int32_t middle = good + (bad - good) / 2;
    (fits(middle) ? good : bad) = middle;
  }
  return good;
}

absl::StatusOr<Contract> AdmissionRules::resolve(const PolicySpec& spec, int32_t prompt_tokens,
                                                 int32_t max_tokens) const {
  if (prompt_tokens < 1) return absl::InvalidArgumentError("prompt: at least one token is needed");
  if (max_tokens < 0) return absl::InvalidArgumentError("sampling.max_tokens: must not be negative");
  if (int64_t{prompt_tokens} + max_tokens > shape_.max_positions) {
    return absl::InvalidArgumentError(absl::StrCat("sampling.max_tokens: a prompt of ", prompt_tokens,
                                                   " tokens and max_tokens of ", max_tokens,
                                                   " exceed the model's length of ", shape_.max_positions));
  }
  auto policy = make_policy(spec);
  if (!policy.ok()) return policy.status();

  Contract contract{.policy = *std::move(policy)};
  contract.footprint = footprint(*contract.policy, spec.kv_dtype, prompt_tokens, max_tokens);
  Admission& figures = contract.figures;
  figures.budget_tokens = contract.policy->budget_tokens(prompt_tokens);
  figures.peak_bytes = contract.footprint.peak_bytes;
  figures.steady_bytes = contract.footprint.steady_bytes;
  figures.full_bytes =
      static_cast<uint64_t>(prompt_tokens + std::max(max_tokens - 1, 0)) * shape_.kv_bytes_per_token(KvDtype::kF16);
  figures.pool_bytes = limits_.pool_pages * static_cast<uint64_t>(geometry_.page_bytes);
  figures.workspace_bytes = workspace_bytes(*contract.policy, prompt_tokens);
  figures.workspace_limit_bytes = limits_.workspace_bytes;
  figures.admissible_ever = Scheduler::fits_ever(
      {.peak_pages = contract.footprint.peak_pages, .workspace_bytes = figures.workspace_bytes}, limits_);
  if (policy_row(spec.kind).takes_budget) {
    figures.smallest_budget_tokens = contract.policy->window_tokens() + 1;
    figures.largest_budget_tokens = largest_budget(spec, figures.smallest_budget_tokens, prompt_tokens, max_tokens);
  }
  return contract;
}

absl::Status AdmissionRules::check_tokens(const Request& request) const {
  const auto outside = [&](TokenId id) { return id < 0 || id >= shape_.vocab_size; };
  const auto refuse = [&](const char* field, TokenId id) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": token id ", id, " is not in the vocabulary of ", shape_.vocab_size));
  };
  for (const TokenId id : request.prompt) {
    if (outside(id)) return refuse("prompt_token_ids", id);
  }
  for (const auto& [id, bias] : request.sampling.logit_bias) {
    if (outside(id)) return refuse("sampling.logit_bias", id);
  }
  for (const TokenId id : request.sampling.stop_token_ids) {
    if (outside(id)) return refuse("sampling.stop_token_ids", id);
  }
  return absl::OkStatus();
}

absl::Status AdmissionRules::check_fits(const Contract& contract) const {
  const Admission& figures = contract.figures;
  if (figures.admissible_ever) return absl::OkStatus();
  if (figures.workspace_bytes > figures.workspace_limit_bytes) {
    return absl::FailedPreconditionError(absl::StrCat("the prompt needs a workspace of ", figures.workspace_bytes,
                                                      " bytes; runtime.workspace_bytes is ",
                                                      figures.workspace_limit_bytes));
  }
  std::string advice;
  if (figures.largest_budget_tokens > 0) {
    advice = absl::StrCat("; the largest budget that fits is ", figures.largest_budget_tokens, " tokens");
  } else if (figures.smallest_budget_tokens > 0) {
    advice = absl::StrCat("; not even the smallest budget of ", figures.smallest_budget_tokens, " tokens fits");
  }
  return absl::FailedPreconditionError(absl::StrCat("the request needs ", contract.footprint.peak_pages,
                                                    " cache pages (", figures.peak_bytes,
                                                    " bytes with positions and tables) and the pool has ",
                                                    limits_.pool_pages, " (", figures.pool_bytes, " bytes)", advice));
}

JobCost AdmissionRules::cost(const Contract& contract, const Request& request) const {
  const auto rows = static_cast<int64_t>(request.prompt.size());
  const int64_t layers = shape_.layers + (request.prompt_logprobs ? head_work_layers(shape_) : 0);
  return {.steady_pages = contract.footprint.steady_pages,
          .peak_pages = contract.footprint.peak_pages,
          .workspace_bytes = contract.figures.workspace_bytes,
          .prefill_work = rows * layers};
}

int64_t head_work_layers(const ModelShape& shape) {
  const int64_t width = shape.width;
  const int64_t attention = 2 * width * shape.head_dim * (shape.q_heads + shape.kv_heads);
  const int64_t layer = attention + 3 * width * shape.feed_forward;
  const int64_t head = width * shape.vocab_size;
  return std::max<int64_t>(1, head / layer);
}

}  // namespace pkv
