// What policies there are, and how they compare on one prompt.
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/command_support.h"
#include "client/cli/progress.h"
#include "client/cli/prompt_input.h"
#include "client/compare_sides.h"
#include "client/compare_table.h"
#include "client/policy_pages.h"
#include "client/text_table.h"

namespace pkv::client {
namespace {

constexpr size_t kMostAnswerBytes = 600;  // of each answer of a comparison; --json has them whole

// Moves the question, with what the chat format puts behind it, from the prompt to the continuation. Returns kGood, or
// the exit code of what was printed.
int hide_question(Client& client, const std::string& question, v1::CompareRequest& request) {
  if (question.empty()) return usage_error("--hide-question needs --question");
  v1::GenerateRequest& whole = *request.mutable_request();
  std::string prompt = whole.prompt();
  if (whole.has_chat()) {
    v1::TokenizeRequest rendering;
    rendering.set_model(whole.model());
    *rendering.mutable_chat() = whole.chat();
    const auto rendered = client.tokenize(rendering);
    if (!rendered) return fail(client, rendered.error);
    prompt = rendered->rendered_text();
  }
  const size_t at = prompt.rfind(question);
  if (at == std::string::npos || at == 0)
    return usage_error("--hide-question: the prompt has no question behind something else");
  request.set_continuation(prompt.substr(at));
  whole.set_prompt(prompt.substr(0, at));
  return kGood;
}

}  // namespace

int run_policies(Client& client, const PoliciesOptions& options) {
  const auto result = client.list_cache_policies();
  if (!result) return fail(client, result.error);
  if (options.json) {
    std::cout << to_json(*result, false) << "\n";
    return kGood;
  }
  if (options.name.empty()) {
    std::cout << policies_page(*result, output_width());
    return kGood;
  }
  const std::string page = policy_page(*result, options.name, output_width());
  if (!page.empty()) {
    std::cout << page;
    return kGood;
  }
  std::vector<std::string> names;
  for (const auto& policy : result->policies()) names.push_back(policy.name());
  for (const auto& preset : result->presets()) names.push_back(preset.name());
  return usage_error(absl::StrCat("'", options.name, "' is no policy and no preset of the server; it has ",
                                  absl::StrJoin(names, ", ")));
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
  if (options.hide_question) {
    if (const int code = hide_question(client, generate.question, request); code != kGood) return code;
  }
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
    return kGood;
  }
  const size_t width = output_width();
  std::cout << compare_table(*result, names) << "\n"
            << compare_sides(*result, names, width, kMostAnswerBytes) << "\n"
            << absl::StrJoin(wrapped(compare_verdict(*result, names), width), "\n") << "\n";
  return kGood;
}

}  // namespace pkv::client
