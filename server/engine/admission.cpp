// The arithmetic of contracts: footprint, workspace, and the budgets that would fit.
#include "server/engine/admission.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/policy/compressor.h"

namespace pkv {

PlanInput AdmissionRules::plan_input(const CachePolicy& policy, const PolicySpec& spec,
                                     const Engine::Query& query) const {
  return {.policy = policy,
          .spec = spec,
          .geometry = geometry_,
          .q_heads = shape_.q_heads,
          .prompt_tokens = query.prompt_tokens,
          .max_tokens = query.max_tokens};
}

// The largest position used is below the model's length. Positions relative to the cache end where the cache ends.
absl::Status AdmissionRules::check_length(const PolicySpec& spec, const CachePlan& plan,
                                          const Engine::Query& query) const {
  int64_t tokens = int64_t{query.prompt_tokens} + query.max_tokens;
  if (spec.cache_relative()) {
    const int32_t held = *std::max_element(plan.lane_limits.begin(), plan.lane_limits.end());
    tokens = std::min<int64_t>(tokens, std::max(query.prompt_tokens, held));
  }
  if (tokens <= shape_.max_positions) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("sampling.max_tokens: a prompt of ", query.prompt_tokens,
                                                 " tokens and max_tokens of ", query.max_tokens, " use ", tokens,
                                                 " positions; the model has ", shape_.max_positions));
}

absl::StatusOr<PolicyTerms> AdmissionRules::terms(const PolicySpec& spec, const Engine::Query& query) const {
  absl::StatusOr<std::unique_ptr<CachePolicy>> policy = make_policy(spec);
  if (!policy.ok()) return policy.status();
  absl::StatusOr<CachePlan> plan = plan_cache(plan_input(**policy, spec, query));
  if (!plan.ok()) return plan.status();
  if (absl::Status status = check_length(spec, *plan, query); !status.ok()) return status;
  return PolicyTerms{.policy = *std::move(policy), .plan = *std::move(plan)};
}

// Every rival has two sets of lanes: one follows the baseline's answer, one has its own.
Footprint AdmissionRules::footprint(const Contract& contract, const Engine::Query& query) const {
  const auto lanes = [](const CachePlan& plan) {
    return KeptLanes{plan.lane_budgets, plan.lane_limits, plan.state_bytes};
  };
  FootprintInput input{.geometry = geometry_,
                       .dtype = query.policy.kv_dtype,
                       .prompt_tokens = query.prompt_tokens,
                       .own = lanes(contract.own.plan)};
  for (const PolicyTerms& rival : contract.rivals) input.others.insert(input.others.end(), 2, lanes(rival.plan));
  return cache_footprint(input);
}

// The residual stream [n, D], and what each policy observes.
uint64_t AdmissionRules::workspace_bytes(const Contract& contract, const Engine::Query& query) const {
  const CompressorOptions options{
      .geometry = geometry_, .q_heads = shape_.q_heads, .prompt_tokens = query.prompt_tokens};
  uint64_t bytes = sizeof(float) * static_cast<uint64_t>(query.prompt_tokens) * static_cast<uint64_t>(shape_.width);
  bytes += Compressor::workspace_bytes(*contract.own.policy, contract.own.plan, options);
  for (const PolicyTerms& rival : contract.rivals) {
    bytes += Compressor::workspace_bytes(*rival.policy, rival.plan, options);
  }
  return bytes;
}

absl::StatusOr<Contract> AdmissionRules::resolve(const Engine::Query& query) const {
  if (query.prompt_tokens < 1) return absl::InvalidArgumentError("prompt: at least one token is needed");
  if (query.max_tokens < 0) return absl::InvalidArgumentError("sampling.max_tokens: must not be negative");
  if (int64_t{query.prompt_tokens} + query.max_tokens > kMaxTextTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("sampling.max_tokens: prompt and answer must not exceed ", kMaxTextTokens, " tokens"));
  }
  if (query.max_tokens == 0 && !query.compare_with.empty()) {
    return absl::InvalidArgumentError("sampling.max_tokens: a comparison needs an answer of at least one token");
  }
  if (query.prompt_tokens > shape_.max_positions) {
    return absl::InvalidArgumentError(
        absl::StrCat("prompt: has ", query.prompt_tokens, " tokens; the model's length is ", shape_.max_positions));
  }
  absl::StatusOr<PolicyTerms> own = terms(query.policy, query);
  if (!own.ok()) return own.status();
  Contract contract{.own = *std::move(own)};
  bool within_budget = contract.own.plan.within_budget;
  for (const PolicySpec& spec : query.compare_with) {
    if (spec.kv_dtype != query.policy.kv_dtype) {
      return absl::InvalidArgumentError("cache_policy.kv_dtype: must be that of the policy it is compared with");
    }
    absl::StatusOr<PolicyTerms> rival = terms(spec, query);
    if (!rival.ok()) return rival.status();
    within_budget = within_budget && rival->plan.within_budget;
    contract.rivals.push_back(*std::move(rival));
  }
  contract.footprint = footprint(contract, query);

  const CachePlan& plan = contract.own.plan;
  Admission& figures = contract.figures;
  figures.budget_tokens = plan.budget_tokens;
  figures.peak_bytes = contract.footprint.peak_bytes;
  figures.steady_bytes = contract.footprint.steady_bytes;
  figures.full_bytes = static_cast<uint64_t>(query.prompt_tokens + std::max(query.max_tokens - 1, 0)) *
                       shape_.kv_bytes_per_token(KvDtype::kF16);
  figures.pool_bytes = limits_.pool_pages * static_cast<uint64_t>(geometry_.page_bytes);
  figures.workspace_bytes = workspace_bytes(contract, query);
  figures.workspace_limit_bytes = limits_.workspace_bytes;
  figures.lane_budgets = plan.lane_budgets;
  figures.smallest_budget_tokens = plan.smallest_budget_tokens;
  figures.smallest_budget_bytes = plan.smallest_budget_bytes;
  figures.within_budget = within_budget;
  figures.admissible_ever =
      within_budget && Scheduler::fits_ever(cost(contract, query.prompt_tokens, /*scores_prompt=*/false), limits_);
  if (!figures.admissible_ever && policy_row(query.policy.kind).takes_budget) {
    const auto fits = [&](const CachePlan& other) { return other.footprint.peak_pages <= limits_.pool_pages; };
    const std::optional<CachePlan> largest = largest_plan(plan_input(*contract.own.policy, query.policy, query), fits);
    figures.largest_budget_tokens = largest ? largest->budget_tokens : 0;
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
  if (!figures.within_budget) {
    return absl::FailedPreconditionError(
        absl::StrCat("cache_policy.budget: the smallest budget that holds at every "
                     "instant of this request is ",
                     figures.smallest_budget_bytes, " bytes"));
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

JobCost AdmissionRules::cost(const Contract& contract, int64_t rows, bool scores_prompt) const {
  const int64_t layers = shape_.layers + (scores_prompt ? head_work_layers(shape_) : 0);
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
