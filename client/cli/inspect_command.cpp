// Writes the page of kept positions: of a new answer under one policy or several, or of saved replies.
#include <algorithm>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "client/cli/answer.h"
#include "client/cli/command_support.h"
#include "client/cli/progress.h"
#include "client/cli/prompt_input.h"
#include "client/compared_replies.h"
#include "client/inspect_page.h"
#include "client/token_texts.h"

namespace pkv::client {
namespace {

constexpr size_t kMostViews = 4;  // more have no room beside each other

int read_views(const InspectOptions& options, InspectInput& input) {
  const GenerateOptions& generate = options.generate;
  if (generate.request.prompt || !generate.prompt_file.empty() || !options.policies.empty())
    return usage_error("--from-reply excludes a prompt and --policies");
  for (const std::string& file : options.from_replies) {
    v1::GenerateResponse reply;
    if (std::string error = read_reply(file, reply); !error.empty())
      return usage_error(absl::StrCat("--from-reply: ", error));
    input.views.push_back({reply_title(reply), std::move(reply)});
  }
  for (size_t i = 0; i < input.views.size(); ++i) {
    const std::string title = reply_title(input.views[i].reply);
    const auto alike = [&](const InspectView& view) { return reply_title(view.reply) == title; };
    if (std::count_if(input.views.begin(), input.views.end(), alike) > 1)
      absl::StrAppend(&input.views[i].title, " (", options.from_replies[i], ")");
  }
  if (options.tokens) input.tokens = echoed_token_texts(input.views[0].reply);
  return kGood;
}

// The policies of --policies or, where there are none, the one that the other options make.
std::string chosen_policies(const InspectOptions& options, std::vector<NamedPolicy>& policies) {
  const PolicyOptions& cache = options.generate.request.cache;
  if (!options.policies.empty()) return parse_policies(options.policies, cache, policies);
  return build_policy(cache, policies.emplace_back().policy);
}

int failed(const Client& client, const Error& error, const GenerateOptions& generate) {
  return fail(client, error, {.max_tokens = generate.request.max_tokens.value_or(kDefaultMaxTokens)});
}

// All policies in one call, which reads the prompt once. Adds no views where that is not possible: comparisons are
// greedy, take no stop texts and one entry format, and hold the caches of all policies at the same time. Whether a
// request is so the server says, before it does any work; only of a temperature or an entry format that the request
// leaves open it would make its own.
int compare_policies(Client& client, const GenerateOptions& generate, const std::vector<NamedPolicy>& policies,
                     const v1::GenerateRequest& request, InspectInput& input) {
  const bool greedy = request.sampling().has_temperature() && request.sampling().temperature() == 0;
  if (policies.size() < 2 || !greedy || policies[0].policy.has_preset()) return kGood;
  v1::CompareRequest comparison;
  *comparison.mutable_request() = request;
  *comparison.mutable_request()->mutable_cache_policy() = policies[0].policy;
  for (size_t i = 1; i < policies.size(); ++i) *comparison.add_policies() = policies[i].policy;
  Progress progress(!generate.quiet, "comparing");
  const auto result = client.compare(comparison);
  progress.end();
  if (!result) {
    const grpc::StatusCode code = result.error.code;
    const bool alone = code == grpc::StatusCode::INVALID_ARGUMENT || code == grpc::StatusCode::FAILED_PRECONDITION;
    return alone ? int{kGood} : failed(client, result.error, generate);
  }
  std::vector<v1::GenerateResponse> replies = compared_replies(*result);
  for (size_t i = 0; i < std::min(replies.size(), policies.size()); ++i)
    input.views.push_back({policies[i].text, std::move(replies[i])});
  return kGood;
}

int ask_one_by_one(Client& client, const GenerateOptions& generate, const std::vector<NamedPolicy>& policies,
                   v1::GenerateRequest request, InspectInput& input) {
  for (const NamedPolicy& named : policies) {
    request.clear_cache_policy();
    if (named.policy.ByteSizeLong() > 0) *request.mutable_cache_policy() = named.policy;
    v1::GenerateResponse reply;
    const auto result = fetch_answer(client, request, {.silent = true, .quiet = generate.quiet}, reply);
    if (!result) return failed(client, result.error, generate);
    input.views.push_back({policies.size() > 1 ? named.text : reply_title(reply), std::move(reply)});
  }
  return kGood;
}

int ask_views(Client& client, InspectOptions& options, InspectInput& input) {
  GenerateOptions& generate = options.generate;
  std::vector<NamedPolicy> policies;
  if (std::string error = chosen_policies(options, policies); !error.empty()) return usage_error(error);
  if (policies.size() > kMostViews)
    return usage_error(absl::StrCat("--policies: at most ", kMostViews, " are shown side by side"));
  std::vector<const v1::CachePolicy*> chosen;
  for (const NamedPolicy& named : policies) chosen.push_back(&named.policy);
  if (generate.request.cache.preset.empty()) {
    if (const int code = check_presets(client, chosen); code != kGood) return code;
  }
  generate.request.report = "positions";
  v1::GenerateRequest request;
  if (const int code = prepare_request(client, generate, request); code != kGood) return code;
  if (const int code = compare_policies(client, generate, policies, request, input); code != kGood) return code;
  if (input.views.empty()) {
    if (const int code = ask_one_by_one(client, generate, policies, request, input); code != kGood) return code;
  }
  if (!options.tokens) return kGood;
  std::string why;
  input.tokens = fetch_token_texts(client, request, why);
  if (input.tokens.empty()) std::cerr << "pyramidkv: the page is without the prompt's text: " << why << "\n";
  return kGood;
}

// What is wrong with the replies together, or "".
std::string check_views(const InspectInput& input) {
  if (input.views.size() > kMostViews)
    return absl::StrCat("--from-reply: at most ", kMostViews, " are shown side by side");
  for (const InspectView& view : input.views) {
    if (!has_positions(view.reply))
      return "the reply has no kept positions: save one with 'generate --report positions --save-reply FILE'";
    const uint32_t first = input.views[0].reply.usage().prompt_tokens(), tokens = view.reply.usage().prompt_tokens();
    if (first != tokens)
      return absl::StrCat("the replies are of different prompts: one has ", first, " tokens, another ", tokens);
  }
  return "";
}

}  // namespace

int run_inspect(Client& client, InspectOptions options) {
  if (std::string error = cannot_write(options.output); !error.empty())
    return usage_error(absl::StrCat("--output: ", error));
  InspectInput input{.question = options.generate.question};
  const int code = options.from_replies.empty() ? ask_views(client, options, input) : read_views(options, input);
  if (code != kGood) return code;
  if (std::string error = check_views(input); !error.empty()) return usage_error(error);
  if (input.tokens.size() != input.views[0].reply.usage().prompt_tokens()) input.tokens.clear();
  if (!write_all(options.output, inspect_page(input)))
    return usage_error(absl::StrCat("--output: cannot write ", options.output));
  for (const InspectView& view : input.views) {
    if (input.views.size() > 1 && !options.generate.json) std::cout << view.title << ":\n";
    std::cout << (options.generate.json ? to_json(view.reply, false) : answer_text(view.reply)) << "\n";
  }
  std::cerr << "wrote " << options.output << "\n";
  return kGood;
}

}  // namespace pkv::client
