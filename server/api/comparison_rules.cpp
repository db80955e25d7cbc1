// The rules of Compare: a greedy baseline and the policies that are held against it, each of which could be admitted by
// itself, and all together.
#include "server/api/comparison_rules.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "server/api/admission_check.h"
#include "server/api/errors.h"
#include "server/engine/engine.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

// A token of the answer is compared with the model's best one, so nothing may stand between the two; and what is about
// the way an answer is sent has no meaning here.
absl::Status check_baseline(const pb::GenerateRequest& message) {
  const pb::SamplingParams& sampling = message.sampling();
  const pb::OutputOptions& output = message.output();
  const auto greedy = [](const char* field) {
    return bad_sampling(absl::StrCat("sampling.", field), "comparisons are greedy, so this must not be set");
  };
  const auto unsent = [](const char* field) {
    return bad_sampling(absl::StrCat("output.", field), "means nothing in a comparison, so it must not be set");
  };
  if (sampling.has_temperature() && sampling.temperature() != 0) {
    return bad_sampling("sampling.temperature", "comparisons are greedy, so this must be 0 or unset");
  }
  if (sampling.has_repetition_penalty() && sampling.repetition_penalty() != 1) return greedy("repetition_penalty");
  if (sampling.frequency_penalty() != 0) return greedy("frequency_penalty");
  if (sampling.presence_penalty() != 0) return greedy("presence_penalty");
  if (sampling.logit_bias_size() > 0) return greedy("logit_bias");
  if (sampling.stop_size() > 0) {
    return bad_sampling("sampling.stop", "answers of a comparison end with tokens only: stop_token_ids, max_tokens");
  }
  if (output.echo()) return unsent("echo");
  if (output.logprobs()) return unsent("logprobs");
  if (output.top_logprobs() > 0) return unsent("top_logprobs");
  if (output.has_stream_interval_tokens()) return unsent("stream_interval_tokens");
  return absl::OkStatus();
}

pb::GenerateRequest baseline_of(const pb::CompareRequest& message) {
  pb::GenerateRequest baseline = message.request();
  baseline.mutable_sampling()->set_temperature(0);
  if (baseline.cache_policy().policy_case() == pb::CachePolicy::POLICY_NOT_SET) {
    baseline.mutable_cache_policy()->mutable_full();
  }
  return baseline;
}

// `of_baseline`: the policy that the prompt is read for.
absl::StatusOr<PolicySpec> read_policy(const pb::CachePolicy& wished, const PolicyCatalog& policies,
                                       const PolicySpec& of_baseline) {
  const KvDtype baseline = of_baseline.kv_dtype;
  PKV_ASSIGN_OR_RETURN(PolicySpec spec, policies.resolve(wished));
  // A preset and some policies have a format of their own; only what has none takes the baseline's.
  const bool has_own = wished.policy_case() == pb::CachePolicy::kPreset || policy_row(spec.kind).kv_dtype.has_value();
  if (!wished.has_kv_dtype() && !has_own) spec.kv_dtype = baseline;
  if (!wished.has_prefill()) {
    spec.prefill = of_baseline.prefill;
    spec.prefill_tokens = of_baseline.prefill_tokens;
  }
  if (prompt_format(spec.kv_dtype) != prompt_format(baseline)) {
    return bad_cache_policy("cache_policy.kv_dtype",
                            absl::StrCat("must be the baseline's, or another format whose prompt is read with ",
                                         entry_format(prompt_format(baseline)).name, " entries, for they share it"));
  }
  return spec;
}

absl::Status move_to_policy(const absl::Status& status, int index) {
  const absl::Status moved = with_field_moved(status, "cache_policy", absl::StrCat("policies[", index, "]"));
  return with_field_moved(moved, "sampling.", "request.sampling.");
}

// Whether the policy could be admitted by itself.
absl::Status check_alone(const Request& request, const PolicySpec& spec, const Engine& engine) {
  const Contract::Query query{.policy = spec,
                              .prompt_tokens = static_cast<int32_t>(request.prompt.size()),
                              .max_tokens = request.sampling.max_tokens};
  const absl::StatusOr<Contract> contract = engine.estimate(query);
  if (!contract.ok()) return contract_error(contract.status(), query);
  return contract->refusal ? refusal_error(*contract->refusal, query) : absl::OkStatus();
}

absl::Status read_policies(const pb::CompareRequest& message, const ServedModel& served, const PolicyCatalog& policies,
                           RequestDraft& draft) {
  Request& request = *draft.request;
  for (int i = 0; i < message.policies_size(); ++i) {
    absl::StatusOr<PolicySpec> spec = read_policy(message.policies(i), policies, request.policy);
    if (!spec.ok()) return move_to_policy(spec.status(), i);
    absl::Status status = pin_system_message(message.request(), draft.prompt, *spec);
    if (!status.ok()) return move_to_policy(status, i);
    status = check_alone(request, *spec, *served.engine);
    if (!status.ok()) return move_to_policy(status, i);
    request.compare_with.push_back(*std::move(spec));
  }
  return absl::OkStatus();
}

// What the model's length leaves for the answer is shared with the continuation.
absl::Status read_continuation(const pb::CompareRequest& message, const ServedModel& served, const FrontLimits& limits,
                               const std::stop_token& stop, Request& request) {
  if (message.continuation().empty()) return absl::OkStatus();
  const int32_t max_positions = served.shape.max_positions;
  const int64_t left = longest_text(request.policy, max_positions) - static_cast<int64_t>(request.prompt.size());
  PKV_RETURN_IF_ERROR(check_text_bytes(message.continuation().size(), served, left, "continuation"));
  PKV_RETURN_IF_ERROR(check_text_size(message.continuation().size(), limits, "continuation"));
  PKV_ASSIGN_OR_RETURN(request.continuation, encode_text(message.continuation(), *served.tokenizer,
                                                         /*add_special=*/false, "continuation", stop));
  const auto given = static_cast<int64_t>(request.continuation.size());
  int64_t answer = request.sampling.max_tokens;
  if (!message.request().sampling().has_max_tokens()) answer = std::max<int64_t>(1, std::min(answer, left - given));
  if (given + answer > left) {
    return context_too_long("continuation", max_positions, static_cast<int64_t>(request.prompt.size()) + given + answer,
                            absl::StrCat("a prompt of ", request.prompt.size(), " tokens, this of ", given, " and ",
                                         answer, " of an answer are beyond the model's length of ", max_positions));
  }
  request.sampling.max_tokens = static_cast<int32_t>(given + answer);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ValidRequest> validate_comparison(const pb::CompareRequest& message, const ServedModel& served,
                                                 ServerState& state, std::optional<absl::Time> deadline,
                                                 const std::stop_token& stop) {
  if (message.policies_size() < 1 || message.policies_size() > kMaxComparisons) {
    return bad_input("policies",
                     absl::StrCat("must be 1 to ", kMaxComparisons, " policies, not ", message.policies_size()));
  }
  if (absl::Status status = check_baseline(message.request()); !status.ok())
    return with_field_moved(status, "", "request.");
  absl::StatusOr<RequestDraft> draft = read_request(baseline_of(message), served, state, deadline, stop);
  if (!draft.ok()) return with_field_moved(draft.status(), "", "request.");
  PKV_RETURN_IF_ERROR(read_continuation(message, served, *state.limits(), stop, *draft->request));
  PKV_RETURN_IF_ERROR(read_policies(message, served, *state.policies(), *draft));
  absl::StatusOr<ValidRequest> valid = prepare_draft(*draft, served, *state.limits());
  if (!valid.ok()) {
    return with_field_moved(with_field_moved(valid.status(), "", "request."), "request.policies", "policies");
  }
  return valid;
}

}  // namespace pkv
