// The commands about what a policy costs and keeps: estimate, compare, inspect.
#include <algorithm>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "client/answer.h"
#include "client/command_support.h"
#include "client/compare_table.h"
#include "client/inspect_page.h"
#include "client/progress.h"
#include "client/prompt_input.h"
#include "client/report_table.h"

namespace pkv::client {
namespace {

constexpr size_t kMostAnswerBytes = 600;  // of each answer below a comparison; --json has them whole

// The reply to show: saved, or asked for with positions.
int inspected_reply(Client& client, InspectOptions& options, v1::GenerateResponse& reply) {
  GenerateOptions& generate = options.generate;
  if (!options.from_reply.empty()) {
    if (generate.request.prompt || !generate.prompt_file.empty())
      return usage_error("--from-reply and a prompt exclude each other");
    const std::string error = read_reply(options.from_reply, reply);
    return error.empty() ? kGood : usage_error(absl::StrCat("--from-reply: ", error));
  }
  generate.request.report = "positions";
  generate.request.echo = generate.request.logprobs = options.tokens;
  v1::GenerateRequest request;
  if (const int code = prepare_request(client, generate, request); code != kGood) return code;
  const auto result = fetch_answer(client, request, {.silent = true, .quiet = generate.quiet}, reply);
  return result ? kGood
                : fail(client, result.error, {.max_tokens = generate.request.max_tokens.value_or(kDefaultMaxTokens)});
}

// The answer's length that a request without one gets. Returns an exit code.
int default_max_tokens(Client& client, const EstimateOptions& options, uint32_t& max_tokens) {
  int code = kGood;
  const std::optional<v1::Model> model = find_model(client, options.model, code);
  max_tokens = kDefaultMaxTokens;
  if (model && options.prompt_tokens < model->max_model_len())
    max_tokens = std::min(max_tokens, model->max_model_len() - options.prompt_tokens);
  return code;
}

}  // namespace

int run_estimate(Client& client, const EstimateOptions& options) {
  v1::EstimateCacheRequest request;
  request.set_model(options.model);
  request.set_prompt_tokens(options.prompt_tokens);
  v1::CachePolicy policy;
  if (std::string error = build_policy(options.cache, policy); !error.empty()) return usage_error(error);
  uint32_t max_tokens = options.max_tokens.value_or(0);
  if (!options.max_tokens) {
    if (const int code = default_max_tokens(client, options, max_tokens); code != kGood) return code;
  }
  request.set_max_tokens(max_tokens);
  if (policy.ByteSizeLong() > 0) *request.mutable_cache_policy() = std::move(policy);
  if (options.cache.preset.empty()) {
    if (const int code = check_presets(client, {&request.cache_policy()}); code != kGood) return code;
  }
  const auto result = client.estimate_cache(request);
  if (!result) return fail(client, result.error, {.max_tokens = max_tokens});
  std::cout << (options.json ? to_json(*result, false) + "\n" : estimate_text(*result, options.layers));
  return kGood;
}

int run_compare(Client& client, CompareOptions options) {
  GenerateOptions& generate = options.generate;
  std::vector<NamedPolicy> policies;
  if (std::string error = parse_policies(options.policies, generate.request.cache, policies); !error.empty())
    return usage_error(error);
  if (policies.size() < 2)
    return usage_error("--policies: a baseline and at least one policy to compare with it, separated by commas");
  generate.request.cache = {};
  generate.request.temperature = 0;  // comparisons are greedy
  client.set_deadline(generate.deadline);
  if (const int code = assemble_prompt(client, generate); code != kGood) return code;
  v1::CompareRequest request;
  if (std::string error = build_request(generate.request, *request.mutable_request()); !error.empty())
    return usage_error(error);
  std::vector<std::string> names;
  std::vector<const v1::CachePolicy*> chosen;
  for (const NamedPolicy& named : policies) {
    names.push_back(named.text);
    chosen.push_back(&named.policy);
    *(names.size() == 1 ? request.mutable_request()->mutable_cache_policy() : request.add_policies()) = named.policy;
  }
  if (const int code = check_presets(client, chosen); code != kGood) return code;
  Progress progress(!generate.quiet, "comparing");
  const auto result = client.compare(request);
  progress.end();
  if (!result) return fail(client, result.error);
  if (generate.json) {
    std::cout << to_json(*result, false) << "\n";
  } else {
    std::cout << compare_table(*result, names) << "\n" << compare_answers(*result, names, kMostAnswerBytes);
  }
  return kGood;
}

int run_inspect(Client& client, InspectOptions options) {
  if (std::string error = cannot_write(options.output); !error.empty())
    return usage_error(absl::StrCat("--output: ", error));
  v1::GenerateResponse reply;
  if (const int code = inspected_reply(client, options, reply); code != kGood) return code;
  if (!has_positions(reply)) {
    return usage_error(
        "the reply has no kept positions: save one with 'generate --report positions --save-reply FILE'");
  }
  const std::string page =
      inspect_page({.title = reply_title(reply), .question = options.generate.question, .reply = reply});
  if (!write_all(options.output, page)) return usage_error(absl::StrCat("--output: cannot write ", options.output));
  if (options.generate.json) {
    std::cout << to_json(reply, false) << "\n";
  } else {
    std::cout << answer_text(reply) << "\n";
  }
  std::cerr << "wrote " << options.output << "\n";
  return kGood;
}

}  // namespace pkv::client
