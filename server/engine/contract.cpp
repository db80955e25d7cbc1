// The arithmetic of contracts: footprint, workspace, state, and the budgets that would fit.
#include "server/engine/contract.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "server/engine/logit_edits.h"
#include "server/policy/compressor.h"
#include "server/status/field_error.h"

namespace pkv {
namespace {

// What a query says by itself.
absl::Status check_query(const Contract::Query& query, const ModelShape& shape) {
  if (query.prompt_tokens < 1) return field_error("prompt", "at least one token is needed");
  if (query.max_tokens < 0) return field_error("sampling.max_tokens", "must not be negative");
  if (int64_t{query.prompt_tokens} + query.max_tokens > kMaxTextTokens) {
    return field_error("sampling.max_tokens",
                       absl::StrCat("prompt and answer must not exceed ", kMaxTextTokens, " tokens"));
  }
  if (query.max_tokens == 0 && !query.compare_with.empty()) {
    return field_error("sampling.max_tokens", "a comparison needs an answer of at least one token");
  }
  if (query.prompt_tokens > shape.max_positions) {
    return field_error(
        "prompt", absl::StrCat("has ", query.prompt_tokens, " tokens; the model's length is ", shape.max_positions));
  }
  const KvDtype prompt = prompt_format(query.policy.kv_dtype);
  for (const PolicySpec& spec : query.compare_with) {
    if (prompt_format(spec.kv_dtype) == prompt) continue;
    return field_error("cache_policy.kv_dtype",
                       absl::StrCat("must be a format whose prompt is read with ", entry_format(prompt).name,
                                    " entries, as that of the policy it is compared with"));
  }
  return absl::OkStatus();
}

absl::Status check_tokens(const Request& request, int32_t vocab_size) {
  if (request.top_logprobs < 0 || request.top_logprobs > kMaxTopLogprobs) {
    return field_error("output.top_logprobs", absl::StrCat("must be 0 to ", kMaxTopLogprobs));
  }
  const auto outside = [&](TokenId id) { return id < 0 || id >= vocab_size; };
  const auto refuse = [&](const char* field, TokenId id) {
    return field_error(field, absl::StrCat("token id ", id, " is not in the vocabulary of ", vocab_size));
  };
  for (const TokenId id : request.prompt) {
    if (outside(id)) return refuse("prompt_token_ids", id);
  }
  for (const TokenId id : request.continuation) {
    if (outside(id)) return refuse("continuation", id);
  }
  for (const auto& [id, bias] : request.sampling.logit_bias) {
    if (outside(id)) return refuse("sampling.logit_bias", id);
  }
  for (const TokenId id : request.sampling.stop_token_ids) {
    if (outside(id)) return refuse("sampling.stop_token_ids", id);
  }
  return absl::OkStatus();
}

}  // namespace

bool Contract::scores_layers() const {
  const auto drops = [](const Terms& terms) { return terms.plan.drops_entries(); };
  return drops(own) || std::any_of(rivals.begin(), rivals.end(), drops);
}

Contract::Query query_of(const Request& request) {
  return {.policy = request.policy,
          .prompt_tokens = static_cast<int32_t>(request.prompt.size()),
          .max_tokens = request.sampling.max_tokens,
          .compare_with = request.compare_with,
          .prompt_logprobs = request.prompt_logprobs,
          .edited_tokens = LogitEdits::most_tokens(request)};
}

absl::StatusOr<Prepared> Prepared::make(std::shared_ptr<const Request> request, Contract contract) {
  if (contract.refusal) return refused(*contract.refusal);
  return Prepared(std::move(request), std::move(contract));
}

PlanInput ContractRules::plan_input(const CachePolicy& policy, const PolicySpec& spec,
                                    const Contract::Query& query) const {
  return {.policy = policy,
          .spec = spec,
          .geometry = geometry_,
          .q_heads = shape_.q_heads,
          .prompt_tokens = query.prompt_tokens,
          .max_tokens = query.max_tokens};
}

absl::StatusOr<Contract::Terms> ContractRules::terms(const PolicySpec& spec, const Contract::Query& query) const {
  PKV_ASSIGN_OR_RETURN(std::unique_ptr<CachePolicy> policy, make_policy_(spec));
  PKV_ASSIGN_OR_RETURN(CachePlan plan, plan_cache(plan_input(*policy, spec, query)));
  if (plan.positions_used > shape_.max_positions) {
    return refused({.reason = Refusal::Reason::kLength,
                    .positions = static_cast<uint64_t>(plan.positions_used),
                    .max_positions = static_cast<uint64_t>(shape_.max_positions)});
  }
  return Contract::Terms{.policy = std::move(policy), .plan = std::move(plan)};
}

absl::Status ContractRules::check_prefill(const PolicySpec& spec, const PolicySpec& baseline) const {
  const bool dense = spec.prefill == PrefillAttention::kDense;
  if (spec.prefill != baseline.prefill || (!dense && spec.prefill_tokens != baseline.prefill_tokens)) {
    return field_error("cache_policy.prefill", "must be that of the baseline, for the prompt is read once");
  }
  if (dense) return absl::OkStatus();
  if (!traits_.sparse_attention) {
    return field_error(
        "cache_policy.prefill",
        "VERTICAL_SLASH is not built for this server's device (runtime.device: cpu has it); leave it out",
        absl::StatusCode::kUnimplemented);
  }
  if (spec.prefill_tokens < kLeastPrefillTokens) {
    return field_error("cache_policy.prefill_tokens",
                       absl::StrCat("must be at least ", kLeastPrefillTokens, ", not ", spec.prefill_tokens));
  }
  return absl::OkStatus();
}

// The last layer's rows attend only where the prompt's own log-probabilities are asked for, but for one that sees
// everything.
std::optional<SparseShape> ContractRules::sparse_shape(const Contract::Query& query) const {
  const SparseShape shape{.layers = shape_.layers - (query.prompt_logprobs ? 0 : 1),
                          .q_heads = shape_.q_heads,
                          .kv_heads = shape_.kv_heads,
                          .head_dim = shape_.head_dim,
                          .tokens = query.prompt_tokens,
                          .attended_tokens = query.policy.prefill_tokens};
  const bool sparse = query.policy.prefill == PrefillAttention::kVerticalSlash && shape.leaves_out();
  return sparse && shape.layers > 0 ? std::optional(shape) : std::nullopt;
}

// Every rival has two sets of lanes, with their state: one follows the baseline's answer, one has its own. The
// workspace is the residual stream [n, D], what each policy observes, and what cuts are scored in; what answers are
// scored in anew is state. Every answer has its own edits of logits.
void ContractRules::add_cost(const Contract::Query& query, Contract& contract) const {
  const Compressor::Options options{
      .geometry = geometry_, .q_heads = shape_.q_heads, .prompt_tokens = query.prompt_tokens};
  std::vector<const CachePlan*> others;
  JobCost& cost = contract.cost;
  PromptWork& work = contract.work;
  work = {.row = layer_row_work(shape_),
          .least_rows = traits_.unit_rows,
          .pair = int64_t{2} * shape_.q_heads * shape_.head_dim,
          .cut = contract.sparse ? SparsePrefill::layer_work(*contract.sparse) : 0,
          .head_row = query.prompt_logprobs ? head_row_work(shape_) : 0};
  cost.workspace_bytes =
      sizeof(float) * static_cast<uint64_t>(query.prompt_tokens) * static_cast<uint64_t>(shape_.width);
  if (contract.scores_layers()) {
    cost.workspace_bytes += CompressorScratch::bytes(shape_.q_heads, geometry_, query.prompt_tokens);
  }
  if (contract.sparse) {
    cost.workspace_bytes += SparsePrefill::bytes(*contract.sparse);
    work.most_seen = contract.sparse->most_seen();
  }
  const uint64_t edit_bytes = LogitEdits::bytes(std::min<int64_t>(query.edited_tokens, shape_.vocab_size));
  const auto refresh_bytes = [&](const Contract::Terms& terms) {
    return Evictor::scratch_bytes(*terms.policy, terms.plan, {.geometry = geometry_, .q_heads = shape_.q_heads});
  };
  const auto add_observation = [&](const Contract::Terms& terms) {
    cost.workspace_bytes += Compressor::workspace_bytes(*terms.policy, terms.plan, options);
    // Behind a pattern attention gives no log-sum-exps: a second pass.
    work.observed += (contract.sparse ? 2 : 1) * Compressor::observed_pair_work(*terms.policy, terms.plan, options);
    work.cut += Compressor::cut_work(*terms.policy, terms.plan, options);
  };
  add_observation(contract.own);
  cost.state_bytes = contract.own.plan.state_bytes + refresh_bytes(contract.own) + edit_bytes;
  for (const Contract::Terms& rival : contract.rivals) {
    others.insert(others.end(), 2, &rival.plan);
    add_observation(rival);
    cost.state_bytes += 2 * (rival.plan.state_bytes + refresh_bytes(rival)) + edit_bytes;
  }
  cost.rows = static_cast<int32_t>(1 + others.size());
  const Footprint footprint = cache_footprint(geometry_, query.prompt_tokens, contract.own.plan, others);
  cost.steady_pages = footprint.steady_pages;
  cost.peak_pages = footprint.peak_pages;
  cost.prefill_work = contract.work.whole(query.prompt_tokens, shape_.layers);
  contract.steady_bytes = footprint.steady_bytes;
  contract.peak_bytes = footprint.peak_bytes;
  contract.full_bytes = static_cast<uint64_t>(query.prompt_tokens + std::max(query.max_tokens - 1, 0)) *
                        shape_.kv_bytes_per_token(KvDtype::kF16);
}

std::optional<Refusal> ContractRules::refusal(const Contract::Query& query, const Contract& contract) const {
  const JobCost& cost = contract.cost;
  const bool within_budget = contract.own.plan.within_budget &&
                             std::all_of(contract.rivals.begin(), contract.rivals.end(),
                                         [](const Contract::Terms& rival) { return rival.plan.within_budget; });
  if (within_budget && Scheduler::fits_ever(cost, limits_)) return std::nullopt;
  if (cost.rows > limits_.max_running) {
    return Refusal{.reason = Refusal::Reason::kRows,
                   .rows = static_cast<uint64_t>(cost.rows),
                   .max_running = static_cast<uint64_t>(limits_.max_running)};
  }
  Refusal refusal{.peak_bytes = contract.peak_bytes,
                  .pool_bytes = limits_.pool_pages * static_cast<uint64_t>(geometry_.page_bytes),
                  .workspace_bytes = cost.workspace_bytes,
                  .state_bytes = cost.state_bytes,
                  .workspace_limit_bytes = limits_.workspace_bytes,
                  .smallest_budget_tokens = static_cast<uint64_t>(contract.own.plan.smallest_budget_tokens),
                  .smallest_budget_bytes = contract.own.plan.smallest_budget_bytes};
  if (!within_budget) {
    refusal.reason = Refusal::Reason::kBudget;
  } else if (cost.workspace_bytes + cost.state_bytes > limits_.workspace_bytes) {
    refusal.reason = Refusal::Reason::kWorkspace;
  }
  if (policy_row(query.policy.kind).takes_budget) {
    const auto fits = [&](const CachePlan& other) { return other.footprint.peak_pages <= limits_.pool_pages; };
    const std::optional<CachePlan> largest = largest_plan(plan_input(*contract.own.policy, query.policy, query), fits);
    if (largest) refusal.largest_budget_tokens = static_cast<uint64_t>(largest->budget_tokens);
  }
  return refusal;
}

absl::StatusOr<Contract> ContractRules::contract(const Contract::Query& query) const {
  PKV_RETURN_IF_ERROR(check_query(query, shape_));
  PKV_RETURN_IF_ERROR(check_prefill(query.policy, query.policy));
  for (const PolicySpec& spec : query.compare_with) PKV_RETURN_IF_ERROR(check_prefill(spec, query.policy));
  PKV_ASSIGN_OR_RETURN(Contract::Terms own, terms(query.policy, query));
  Contract contract{.own = std::move(own)};
  for (const PolicySpec& spec : query.compare_with) {
    PKV_ASSIGN_OR_RETURN(Contract::Terms rival, terms(spec, query));
    contract.rivals.push_back(std::move(rival));
  }
  contract.sparse = sparse_shape(query);
  add_cost(query, contract);
  contract.refusal = refusal(query, contract);
  return contract;
}

absl::StatusOr<Prepared> ContractRules::prepare(std::shared_ptr<const Request> request) const {
  PKV_RETURN_IF_ERROR(check_tokens(*request, shape_.vocab_size));
  PKV_ASSIGN_OR_RETURN(Contract made, contract(query_of(*request)));
  return Prepared::make(std::move(request), std::move(made));
}

}  // namespace pkv
