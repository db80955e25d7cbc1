#include "server/api/validation.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/status_macros.h"
#include "server/api/admission_check.h"
#include "server/api/deadline_check.h"
#include "server/api/errors.h"
#include "server/api/report_size.h"
#include "server/api/sampling_rules.h"
#include "server/engine/engine.h"
#include "server/policy/registry.h"
#include "server/telemetry/utf8.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

// Of a seed that is drawn: JavaScript reads the numbers of JSON as doubles, and has no more of them exactly.
constexpr int kSeedBits = 53;

// What the answer may have: what is asked for, or the default limited to what the model's length leaves.
absl::Status read_max_tokens(const pb::GenerateRequest& message, int32_t max_positions, Request& request) {
  const pb::SamplingParams& sampling = message.sampling();
  const auto prompt_tokens = static_cast<int64_t>(request.prompt.size());
  const int64_t left = longest_text(request.policy, max_positions) - prompt_tokens;
  if (prompt_tokens > max_positions) {
    return context_too_long(input_field(message), max_positions, prompt_tokens,
                            absl::StrCat("has ", prompt_tokens, " tokens, and the model's length is ", max_positions));
  }
  const int64_t asked = sampling.has_max_tokens() ? sampling.max_tokens() : std::min<int64_t>(kDefaultMaxTokens, left);
  if (!message.output().echo() && asked == 0) {
    if (sampling.has_max_tokens()) return bad_sampling("sampling.max_tokens", "may be 0 only with output.echo");
    return context_too_long(input_field(message), max_positions, prompt_tokens + 1,
                            absl::StrCat("has ", prompt_tokens, " tokens, which leaves no room for an answer"));
  }
  if (asked > left) {
    return context_too_long("sampling.max_tokens", max_positions, prompt_tokens + asked,
                            absl::StrCat("a prompt of ", prompt_tokens, " tokens and ", asked,
                                         " more are beyond the model's length of ", max_positions));
  }
  request.sampling.max_tokens = static_cast<int32_t>(asked);
  return absl::OkStatus();
}

absl::Status read_output(const pb::OutputOptions& message, OutputOptions& output, Request& request) {
  if (message.top_logprobs() > kMaxTopLogprobs) {
    return bad_sampling("output.top_logprobs",
                        absl::StrCat("must be at most ", kMaxTopLogprobs, ", not ", message.top_logprobs()));
  }
  if (message.top_logprobs() > 0 && message.has_logprobs() && !message.logprobs()) {
    return bad_sampling("output.top_logprobs", "needs output.logprobs");
  }
  if (message.has_stream_interval_tokens() &&
      (message.stream_interval_tokens() < 1 || message.stream_interval_tokens() > 1u << 20)) {
    return bad_sampling("output.stream_interval_tokens", absl::StrCat("must be from 1 to ", 1u << 20));
  }
  output.logprobs = message.logprobs() || message.top_logprobs() > 0;
  output.echo = message.echo();
  output.return_token_ids = !message.has_return_token_ids() || message.return_token_ids();
  output.interval_tokens =
      message.has_stream_interval_tokens() ? static_cast<int32_t>(message.stream_interval_tokens()) : 1;
  request.logprobs = output.logprobs;
  request.top_logprobs = static_cast<int32_t>(message.top_logprobs());
  request.prompt_logprobs = output.logprobs && output.echo;
  return absl::OkStatus();
}

absl::StatusOr<ReportDetail> read_detail(pb::CacheReportDetail detail) {
  switch (detail) {
    case pb::CACHE_REPORT_DETAIL_NONE:
      return ReportDetail::kNone;
    case pb::CACHE_REPORT_DETAIL_UNSPECIFIED:
    case pb::CACHE_REPORT_DETAIL_SUMMARY:
      return ReportDetail::kSummary;
    case pb::CACHE_REPORT_DETAIL_PER_LAYER:
      return ReportDetail::kPerLayer;
    case pb::CACHE_REPORT_DETAIL_POSITIONS:
      return ReportDetail::kPositions;
    default:
      return bad_input("cache_report", absl::StrCat("has no value ", static_cast<int>(detail)));
  }
}

absl::Status read_request_id(const pb::GenerateRequest& message, RandomSource& random, std::string& id) {
  if (!is_request_id(message.request_id())) {
    return bad_input("request_id", absl::StrCat("must be UTF-8, at most ", kMaxRequestIdBytes,
                                                " bytes of it, without control characters"));
  }
  id = message.request_id().empty() ? absl::StrFormat("req-%016x", random.next()) : message.request_id();
  return absl::OkStatus();
}

}  // namespace

bool is_request_id(std::string_view id) {
  return id.size() <= kMaxRequestIdBytes && !find_invalid_utf8(id) &&
         std::ranges::none_of(id, [](unsigned char c) { return c < 0x20 || c == 0x7f; });
}

int64_t longest_text(const PolicySpec& policy, int32_t max_positions) {
  return policy_row(policy.kind).make(policy)->cache_relative() ? kMaxTextTokens : max_positions;
}

absl::StatusOr<RequestDraft> read_request(const pb::GenerateRequest& message, const ServedModel& served,
                                          ServerState& state, std::optional<absl::Time> deadline,
                                          const std::stop_token& stop) {
  RequestDraft draft{.request = std::make_shared<Request>()};
  Request& request = *draft.request;
  PKV_RETURN_IF_ERROR(read_request_id(message, state.random(), request.id));
  PKV_RETURN_IF_ERROR(read_sampling(message.sampling(), served.tokenizer->vocab_size(), request.sampling));
  PKV_RETURN_IF_ERROR(read_output(message.output(), draft.output, request));
  if (!message.sampling().has_seed()) request.sampling.seed = state.random().next() >> (64 - kSeedBits);

  PKV_ASSIGN_OR_RETURN(draft.output.stop, read_stops(message.sampling()));
  PKV_ASSIGN_OR_RETURN(draft.report, read_detail(message.cache_report()));
  PKV_ASSIGN_OR_RETURN(request.policy, state.policies()->resolve(message.cache_policy()));

  PKV_ASSIGN_OR_RETURN(draft.prompt, read_prompt(message, served, *state.limits(), stop));
  PKV_RETURN_IF_ERROR(pin_system_message(message, draft.prompt, request.policy));
  request.prompt = draft.prompt.tokens;
  PKV_RETURN_IF_ERROR(read_max_tokens(message, served.shape.max_positions, request));
  if (request.sampling.min_tokens > request.sampling.max_tokens) {
    return bad_sampling("sampling.min_tokens",
                        absl::StrCat("must be at most max_tokens, which is ", request.sampling.max_tokens));
  }
  const std::span<const TokenId> ends = served.tokenizer->end_tokens();
  request.end_tokens.assign(ends.begin(), ends.end());
  request.record_positions = draft.report == ReportDetail::kPositions;
  request.deadline = deadline;
  return draft;
}

absl::StatusOr<ValidRequest> prepare_draft(const RequestDraft& draft, const ServedModel& served,
                                           const FrontLimits& limits) {
  absl::StatusOr<Prepared> prepared = served.engine->prepare(draft.request);
  if (!prepared.ok()) return contract_error(prepared.status(), query_of(*draft.request));
  PKV_RETURN_IF_ERROR(check_deadline(*draft.request, prepared->contract(), *served.engine));
  PKV_RETURN_IF_ERROR(check_report_size(draft.report, prepared->contract(), served.shape.kv_heads,
                                        draft.request->sampling.max_tokens, limits.max_reply_bytes));
  return ValidRequest{.prepared = *std::move(prepared), .output = draft.output, .report = draft.report};
}

absl::StatusOr<ValidRequest> validate_request(const pb::GenerateRequest& message, const ServedModel& served,
                                              ServerState& state, std::optional<absl::Time> deadline,
                                              const std::stop_token& stop) {
  PKV_ASSIGN_OR_RETURN(RequestDraft draft, read_request(message, served, state, deadline, stop));
  return prepare_draft(draft, served, *state.limits());
}

}  // namespace pkv
