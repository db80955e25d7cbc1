// Translates words to proto fields; what the words mean is decided by the server alone.
#include "client/request_builder.h"

#include <array>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace pkv::client {
namespace {

struct ReportWord {
  const char* word;
  v1::CacheReportDetail detail;
};
constexpr std::array<ReportWord, 4> kReports{{{"none", v1::CACHE_REPORT_DETAIL_NONE},
                                              {"summary", v1::CACHE_REPORT_DETAIL_SUMMARY},
                                              {"layers", v1::CACHE_REPORT_DETAIL_PER_LAYER},
                                              {"positions", v1::CACHE_REPORT_DETAIL_POSITIONS}}};

std::string set_report(const std::string& word, v1::GenerateRequest& request) {
  if (word.empty()) return "";
  std::string complaint = absl::StrCat("--report: '", word, "' is not one of");
  for (const ReportWord& row : kReports) {
    if (word == row.word) {
      request.set_cache_report(row.detail);
      return "";
    }
    absl::StrAppend(&complaint, " ", row.word);
  }
  return complaint;
}

void set_sampling(const RequestOptions& options, v1::SamplingParams& sampling) {
  if (options.temperature) sampling.set_temperature(*options.temperature);
  if (options.top_p) sampling.set_top_p(*options.top_p);
  if (options.top_k) sampling.set_top_k(*options.top_k);
  if (options.min_p) sampling.set_min_p(*options.min_p);
  if (options.repetition_penalty) sampling.set_repetition_penalty(*options.repetition_penalty);
  if (options.frequency_penalty) sampling.set_frequency_penalty(*options.frequency_penalty);
  if (options.presence_penalty) sampling.set_presence_penalty(*options.presence_penalty);
  if (options.seed) sampling.set_seed(*options.seed);
  if (options.max_tokens) sampling.set_max_tokens(*options.max_tokens);
  if (options.min_tokens) sampling.set_min_tokens(*options.min_tokens);
  for (const std::string& stop : options.stop) sampling.add_stop(stop);
  for (uint32_t id : options.stop_ids) sampling.add_stop_token_ids(id);
  if (options.ignore_eos) sampling.set_ignore_eos(true);
}

}  // namespace

std::string parse_logit_bias(const std::string& text, v1::SamplingParams& sampling) {
  const size_t mark = text.find_first_of(":+-=");
  uint32_t id = 0;
  float value = 0;
  const bool sign = mark != std::string::npos && (text[mark] == '+' || text[mark] == '-');
  if (mark == std::string::npos || !absl::SimpleAtoi(text.substr(0, mark), &id) ||
      !absl::SimpleAtof(text.substr(sign ? mark : mark + 1), &value)) {
    return absl::StrCat("--logit-bias: '", text,
                        "' is not ID:VALUE, a token id and what is added to its logit (17:-5)");
  }
  (*sampling.mutable_logit_bias())[id] = value;
  return "";
}

std::string parse_seed(const std::string& text, std::optional<uint64_t>& seed) {
  uint64_t value = 0;
  seed.reset();
  if (text == "-1" || text == "random") return "";
  if (!absl::SimpleAtoi(text, &value))
    return absl::StrCat("--seed: '", text, "' is not a whole number from 0 to ", ~uint64_t{0},
                        ", or -1 for a random one");
  seed = value;
  return "";
}

void greedy_unless_asked(RequestOptions& options) {
  const bool asked = options.temperature || options.top_p || options.top_k || options.min_p || options.seed;
  if (!asked) options.temperature = 0;
}

std::string build_request(const RequestOptions& options, v1::GenerateRequest& request) {
  request.set_model(options.model);
  if (options.prompt) request.set_prompt(*options.prompt);
  for (const auto& [role, content] : options.chat) {
    auto& message = *request.mutable_chat()->add_messages();
    message.set_role(role);
    message.set_content(content);
  }
  v1::CachePolicy policy;
  if (std::string error = build_policy(options.cache, policy); !error.empty()) return error;
  if (policy.ByteSizeLong() > 0) *request.mutable_cache_policy() = std::move(policy);
  set_sampling(options, *request.mutable_sampling());
  for (const std::string& text : options.logit_bias) {
    if (std::string error = parse_logit_bias(text, *request.mutable_sampling()); !error.empty()) return error;
  }
  request.set_request_id(options.request_id);
  auto& output = *request.mutable_output();
  if (options.logprobs || options.top_logprobs) output.set_logprobs(true);
  if (options.top_logprobs) output.set_top_logprobs(*options.top_logprobs);
  if (options.echo) output.set_echo(true);
  if (options.token_ids) output.set_return_token_ids(true);
  if (options.priority) request.set_priority(*options.priority);
  if (options.truncate_prompt_tokens) request.set_truncate_prompt_tokens(*options.truncate_prompt_tokens);
  return set_report(options.report, request);
}

}  // namespace pkv::client
