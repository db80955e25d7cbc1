// Translates words to proto fields; what the words mean is decided by the server alone.
#include "client/request_builder.h"

#include <array>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace pkv::client {
namespace {

template <typename Value>
struct Word {
  const char* word;
  Value value;
};

// Finds `text` in a table of words; "" means unset. False where it is not there.
template <typename Value, size_t N, typename Set>
bool set_word(const std::string& text, const std::array<Word<Value>, N>& words, Set&& set) {
  if (text.empty()) return true;
  for (const auto& row : words) {
    if (text == row.word) {
      set(row.value);
      return true;
    }
  }
  return false;
}

template <typename Value, size_t N>
std::string one_of(const char* option, const std::string& text, const std::array<Word<Value>, N>& words) {
  std::string message = absl::StrCat(option, ": '", text, "' is not one of");
  for (const auto& row : words) absl::StrAppend(&message, " ", row.word);
  return message;
}

constexpr std::array<Word<v1::BudgetScope>, 2> kScopes{{{"prompt", v1::BUDGET_SCOPE_PROMPT},
                                                       {"total", v1::BUDGET_SCOPE_TOTAL}}};
constexpr std::array<Word<v1::Pooling>, 3> kPoolings{{{"max", v1::POOLING_MAX}, {"avg", v1::POOLING_AVG},
                                                     {"none", v1::POOLING_NONE}}};
constexpr std::array<Word<v1::Aggregation>, 3> kAggregations{{{"mean", v1::AGGREGATION_MEAN},
                                                             {"max", v1::AGGREGATION_MAX},
                                                             {"sum", v1::AGGREGATION_SUM}}};
constexpr std::array<Word<v1::PyramidAllocation>, 2> kAllocations{{{"exact", v1::PYRAMID_ALLOCATION_EXACT},
                                                                  {"factory", v1::PYRAMID_ALLOCATION_FACTORY}}};
constexpr std::array<Word<v1::KvDtype>, 4> kKvDtypes{{{"f16", v1::KV_DTYPE_F16}, {"f32", v1::KV_DTYPE_F32},
                                                     {"bf16", v1::KV_DTYPE_BF16}, {"k8v4", v1::KV_DTYPE_K8V4}}};
constexpr std::array<Word<v1::CacheReportDetail>, 4> kReports{{{"none", v1::CACHE_REPORT_DETAIL_NONE},
                                                              {"summary", v1::CACHE_REPORT_DETAIL_SUMMARY},
                                                              {"layers", v1::CACHE_REPORT_DETAIL_PER_LAYER},
                                                              {"positions", v1::CACHE_REPORT_DETAIL_POSITIONS}}};

// snapkv and pyramidkv share these parameters.
template <typename Policy>
std::string set_window_parameters(const RequestOptions& options, Policy& policy) {
  if (options.window) policy.set_window_tokens(*options.window);
  if (options.kernel) policy.set_kernel_size(*options.kernel);
  if (!set_word(options.pooling, kPoolings, [&](auto value) { policy.set_pooling(value); })) {
    return one_of("--pooling", options.pooling, kPoolings);
  }
  if (!set_word(options.aggregation, kAggregations, [&](auto value) { policy.set_group_aggregation(value); })) {
    return one_of("--aggregation", options.aggregation, kAggregations);
  }
  return "";
}

bool has_window_parameters(const RequestOptions& options) {
  return options.window || options.kernel || !options.pooling.empty() || !options.aggregation.empty();
}

std::string set_policy(const RequestOptions& options, v1::CachePolicy& policy) {
  const std::string& name = options.policy;
  if (!options.preset.empty()) {
    if (!name.empty()) return "--policy and --preset exclude each other";
    policy.set_preset(options.preset);
  } else if (name == "full") {
    policy.mutable_full();
  } else if (name == "snapkv") {
    if (std::string error = set_window_parameters(options, *policy.mutable_snapkv()); !error.empty()) return error;
  } else if (name == "pyramidkv") {
    auto& pyramid = *policy.mutable_pyramidkv();
    if (std::string error = set_window_parameters(options, pyramid); !error.empty()) return error;
    if (options.beta) pyramid.set_beta(*options.beta);
    if (!set_word(options.allocation, kAllocations, [&](auto value) { pyramid.set_allocation(value); })) {
      return one_of("--allocation", options.allocation, kAllocations);
    }
  } else if (name == "streaming_llm") {
    policy.mutable_streaming_llm();
  } else if (name == "h2o") {
    policy.mutable_h2o();
  } else if (name == "l2norm") {
    policy.mutable_l2norm();
  } else if (name == "tova") {
    policy.mutable_tova();
  } else if (name == "keydiff") {
    policy.mutable_keydiff();
  } else if (name == "random") {
    policy.mutable_random();
  } else if (!name.empty()) {
    return absl::StrCat("--policy: '", name, "' is no policy; 'pyramidkv policies' lists those the server has");
  }
  if (name != "snapkv" && name != "pyramidkv" && has_window_parameters(options)) {
    return "--window, --kernel, --pooling and --aggregation belong to --policy snapkv or pyramidkv";
  }
  if (name != "pyramidkv" && (options.beta || !options.allocation.empty())) {
    return "--beta and --allocation belong to --policy pyramidkv";
  }
  return "";
}

std::string set_cache_policy(const RequestOptions& options, v1::GenerateRequest& request) {
  v1::CachePolicy policy;
  if (std::string error = set_policy(options, policy); !error.empty()) return error;
  if (!options.budget.empty()) {
    if (std::string error = parse_budget(options.budget, *policy.mutable_budget()); !error.empty()) return error;
  }
  if (!set_word(options.scope, kScopes, [&](auto value) { policy.mutable_budget()->set_scope(value); })) {
    return one_of("--scope", options.scope, kScopes);
  }
  if (!set_word(options.kv_dtype, kKvDtypes, [&](auto value) { policy.set_kv_dtype(value); })) {
    return one_of("--kv-dtype", options.kv_dtype, kKvDtypes);
  }
  const bool chosen = policy.policy_case() != v1::CachePolicy::POLICY_NOT_SET || policy.has_budget() || policy.has_kv_dtype();
  if (chosen) *request.mutable_cache_policy() = policy;
  return "";
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
  if (options.ignore_eos) sampling.set_ignore_eos(true);
}

}  // namespace

std::string parse_budget(const std::string& text, v1::CacheBudget& budget) {
  const std::string complaint = absl::StrCat("--budget: '", text, "' is not a number of tokens (128), a share (12%) or bytes (4MiB)");
  absl::string_view rest = text;
  double number = 0;
  if (absl::ConsumeSuffix(&rest, "%")) {
    if (!absl::SimpleAtod(rest, &number)) return complaint;
    budget.set_keep_ratio(number / 100);
    return "";
  }
  constexpr std::array<Word<uint64_t>, 7> kUnits{{{"KiB", uint64_t{1} << 10}, {"MiB", uint64_t{1} << 20},
                                                 {"GiB", uint64_t{1} << 30}, {"kB", 1000}, {"MB", 1000000},
                                                 {"GB", 1000000000}, {"B", 1}}};
  for (const auto& unit : kUnits) {
    if (!absl::ConsumeSuffix(&rest, unit.word)) continue;
    if (!absl::SimpleAtod(absl::StripAsciiWhitespace(rest), &number) || !(number >= 0) || number > 1e15) return complaint;
    budget.set_bytes(static_cast<uint64_t>(number * static_cast<double>(unit.value)));
    return "";
  }
  uint32_t tokens = 0;
  if (!absl::SimpleAtoi(rest, &tokens)) return complaint;
  budget.set_tokens(tokens);
  return "";
}

std::string build_request(const RequestOptions& options, v1::GenerateRequest& request) {
  request.set_model(options.model);
  if (options.prompt) request.set_prompt(*options.prompt);
  for (const auto& [role, content] : options.chat) {
    auto& message = *request.mutable_chat()->add_messages();
    message.set_role(role);
    message.set_content(content);
  }
  if (std::string error = set_cache_policy(options, request); !error.empty()) return error;
  set_sampling(options, *request.mutable_sampling());
  auto& output = *request.mutable_output();
  if (options.logprobs || options.top_logprobs) output.set_logprobs(true);
  if (options.top_logprobs) output.set_top_logprobs(*options.top_logprobs);
  if (options.echo) output.set_echo(true);
  if (options.token_ids) output.set_return_token_ids(true);
  if (options.truncate_prompt_tokens) request.set_truncate_prompt_tokens(*options.truncate_prompt_tokens);
  if (!set_word(options.report, kReports, [&](auto value) { request.set_cache_report(value); })) {
    return one_of("--report", options.report, kReports);
  }
  return "";
}

}  // namespace pkv::client
