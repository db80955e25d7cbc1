#include "server/rpc/validation.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/rpc/errors.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

absl::StatusOr<std::vector<TokenId>> read_input(const pb::GenerateRequest& message, const ServedModel& served) {
  const Tokenizer& tokenizer = *served.tokenizer;
  switch (message.input_case()) {
    case pb::GenerateRequest::kPrompt:
      if (message.prompt().empty()) return bad_input("prompt", "must not be empty");
      return encode_text(message.prompt(), tokenizer, /*add_special=*/true, "prompt");
    case pb::GenerateRequest::kPromptTokenIds:
      if (message.prompt_token_ids().ids().empty()) return bad_input("prompt_token_ids.ids", "must not be empty");
      return read_token_ids(message.prompt_token_ids().ids(), tokenizer.vocab_size(), "prompt_token_ids.ids");
    case pb::GenerateRequest::kChat: {
      absl::StatusOr<RenderedChat> chat = render_chat(message.chat(), *served.chat_template);
      if (!chat.ok()) return chat.status();
      return std::move(chat->token_ids);
    }
    case pb::GenerateRequest::INPUT_NOT_SET:
      break;
  }
  return bad_input("prompt", "one of prompt, prompt_token_ids and chat has to be given");
}

absl::Status truncate(const pb::GenerateRequest& message, std::vector<TokenId>& prompt) {
  if (!message.has_truncate_prompt_tokens()) return absl::OkStatus();
  const size_t keep = message.truncate_prompt_tokens();
  if (keep == 0) return bad_input("truncate_prompt_tokens", "must be at least 1");
  if (prompt.size() > keep) prompt.erase(prompt.begin(), prompt.end() - static_cast<ptrdiff_t>(keep));
  return absl::OkStatus();
}

absl::Status context_too_long(const std::string& field, int64_t max, int64_t got, const std::string& description) {
  return make_error({.reason = kContextTooLong,
                     .field = field,
                     .description = description,
                     .metadata = {{"max", std::to_string(max)}, {"got", std::to_string(got)}}});
}

const char* input_field(const pb::GenerateRequest& message) {
  if (message.has_prompt_token_ids()) return "prompt_token_ids";
  return message.has_chat() ? "chat" : "prompt";
}

// What the answer may have: what is asked for, or the default limited to what the model's length leaves.
absl::StatusOr<int32_t> read_max_tokens(const pb::GenerateRequest& message, int64_t prompt_tokens,
                                        int32_t max_positions) {
  const pb::SamplingParams& sampling = message.sampling();
  const int64_t left = max_positions - prompt_tokens;
  if (left < 0) {
    return context_too_long(input_field(message), max_positions, prompt_tokens,
                            absl::StrCat("has ", prompt_tokens, " tokens, and the model's length is ", max_positions));
  }
  if (sampling.has_max_tokens()) {
    const int64_t asked = sampling.max_tokens();
    if (asked == 0 && !message.output().echo())
      return bad_sampling("sampling.max_tokens", "may be 0 only with output.echo");
    if (asked > left) {
      return context_too_long("sampling.max_tokens", max_positions, prompt_tokens + asked,
                              absl::StrCat("a prompt of ", prompt_tokens, " tokens and ", asked,
                                           " more are beyond the model's length of ", max_positions));
    }
    return static_cast<int32_t>(asked);
  }
  if (left == 0 && !message.output().echo()) {
    return context_too_long(input_field(message), max_positions, prompt_tokens + 1,
                            absl::StrCat("has ", prompt_tokens, " tokens, which leaves no room for an answer"));
  }
  return static_cast<int32_t>(std::min<int64_t>(kDefaultMaxTokens, left));
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

absl::Status read_request_id(const pb::GenerateRequest& message, RandomSource& random, std::string& id) {
  if (message.request_id().size() > kMaxRequestIdBytes) {
    return bad_input("request_id", absl::StrCat("must be at most ", kMaxRequestIdBytes, " bytes long"));
  }
  id = message.request_id().empty() ? absl::StrFormat("req-%016x", random.next()) : message.request_id();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<TokenId>> read_token_ids(const google::protobuf::RepeatedField<uint32_t>& ids,
                                                    int32_t vocab_size, const std::string& field) {
  std::vector<TokenId> out;
  out.reserve(static_cast<size_t>(ids.size()));
  for (int i = 0; i < ids.size(); ++i) {
    if (ids[i] >= static_cast<uint32_t>(vocab_size)) {
      return bad_input(absl::StrCat(field, "[", i, "]"),
                       absl::StrCat("token id ", ids[i], " is outside the vocabulary of ", vocab_size));
    }
    out.push_back(static_cast<TokenId>(ids[i]));
  }
  return out;
}

absl::StatusOr<RenderedChat> render_chat(const pb::ChatInput& chat, const ChatTemplate& chat_template) {
  if (chat.messages().empty()) return bad_input("chat.messages", "must not be empty");
  std::vector<ChatMessage> messages;
  for (const pb::ChatMessage& message : chat.messages()) messages.push_back({message.role(), message.content()});
  const bool prompt_answer = !chat.has_add_generation_prompt() || chat.add_generation_prompt();
  absl::StatusOr<RenderedChat> rendered = chat_template.render(messages, prompt_answer);
  if (rendered.ok()) {
    if (rendered->token_ids.empty()) return bad_input("chat.messages", "give an empty prompt");
    return rendered;
  }
  const bool callers = absl::IsInvalidArgument(rendered.status());
  return with_reason(rendered.status(), callers ? kBadInput : kNoChatTemplate, "chat.");
}

absl::StatusOr<std::vector<TokenId>> encode_text(const std::string& text, const Tokenizer& tokenizer, bool add_special,
                                                 const std::string& field) {
  absl::StatusOr<std::vector<TokenId>> ids = tokenizer.encode(text, SpecialTokens::kParse);
  if (!ids.ok()) return bad_input(field, std::string(ids.status().message()));
  const std::optional<TokenId> bos = tokenizer.bos();
  if (add_special && bos && (ids->empty() || ids->front() != *bos)) ids->insert(ids->begin(), *bos);
  return ids;
}

absl::Status check_admission(const Request& request, const Engine& engine) {
  const auto prompt_tokens = static_cast<int32_t>(request.prompt.size());
  const absl::StatusOr<Admission> checked = engine.check(request.policy, prompt_tokens, request.sampling.max_tokens);
  if (!checked.ok()) return with_reason(checked.status(), kBadCachePolicy);
  if (checked->admissible_ever) return absl::OkStatus();
  ErrorDetail detail{.code = absl::StatusCode::kFailedPrecondition,
                     .reason = kCacheNeverFits,
                     .description = describe_misfit(*checked),
                     .metadata = {{"peak_bytes", std::to_string(checked->peak_bytes)},
                                  {"pool_bytes", std::to_string(checked->pool_bytes)},
                                  {"workspace_bytes", std::to_string(checked->workspace_bytes)},
                                  {"workspace_limit_bytes", std::to_string(checked->workspace_limit_bytes)}}};
  if (checked->smallest_budget_tokens > 0) {
    PolicySpec smallest = request.policy;
    smallest.budget = {.kind = BudgetKind::kTokens, .tokens = checked->smallest_budget_tokens};
    const absl::StatusOr<Admission> least = engine.check(smallest, prompt_tokens, request.sampling.max_tokens);
    detail.metadata["smallest_budget_tokens"] = std::to_string(checked->smallest_budget_tokens);
    detail.metadata["largest_budget_tokens"] = std::to_string(checked->largest_budget_tokens);
    if (least.ok()) detail.metadata["smallest_budget_bytes"] = std::to_string(least->peak_bytes);
  }
  return make_error(detail);
}

absl::StatusOr<ValidRequest> validate_request(const pb::GenerateRequest& message, const ServedModel& served,
                                              ServerState& state, std::optional<absl::Time> deadline) {
  if (message.has_priority()) return not_built("priority");
  auto request = std::make_shared<Request>();
  ValidRequest valid;
  absl::Status status = read_request_id(message, state.random(), request->id);
  if (status.ok()) status = read_sampling(message.sampling(), served.tokenizer->vocab_size(), request->sampling);
  if (status.ok()) status = read_output(message.output(), valid.output, *request);
  if (!status.ok()) return status;
  if (!message.sampling().has_seed()) request->sampling.seed = state.random().next();

  absl::StatusOr<std::vector<std::string>> stops = read_stops(message.sampling());
  if (!stops.ok()) return stops.status();
  valid.output.stop = *std::move(stops);
  absl::StatusOr<ReportDetail> detail = read_detail(message.cache_report());
  if (!detail.ok()) return detail.status();
  valid.report = *detail;
  absl::StatusOr<PolicySpec> policy = state.policies().resolve(message.cache_policy());
  if (!policy.ok()) return policy.status();
  request->policy = *policy;

  absl::StatusOr<std::vector<TokenId>> prompt = read_input(message, served);
  if (!prompt.ok()) return prompt.status();
  if (status = truncate(message, *prompt); !status.ok()) return status;
  absl::StatusOr<int32_t> max_tokens =
      read_max_tokens(message, static_cast<int64_t>(prompt->size()), served.shape.max_positions);
  if (!max_tokens.ok()) return max_tokens.status();
  request->sampling.max_tokens = *max_tokens;
  if (request->sampling.min_tokens > *max_tokens) {
    return bad_sampling("sampling.min_tokens", absl::StrCat("must be at most max_tokens, which is ", *max_tokens));
  }
  request->prompt = *std::move(prompt);
  const std::span<const TokenId> ends = served.tokenizer->end_tokens();
  request->end_tokens.assign(ends.begin(), ends.end());
  request->record_positions = valid.report == ReportDetail::kPositions;
  request->deadline = deadline;
  if (status = check_admission(*request, *served.engine); !status.ok()) return status;
  valid.request = std::move(request);
  return valid;
}

}  // namespace pkv
