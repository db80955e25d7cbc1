// What a request would cost, before it is made.
#include <algorithm>
#include <cstdlib>
#include <iostream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/cli/command_support.h"
#include "client/cli/prompt_input.h"
#include "client/estimate_table.h"
#include "client/policy_words.h"
#include "client/report_table.h"
#include "client/token_texts.h"

namespace pkv::client {
namespace {

constexpr char kUsualServer[] = "127.0.0.1:50051";

// Lengths of prompt and answer, and where they come from.
struct Lengths {
  uint32_t prompt = 0, answer = 0;
  uint32_t model = 0;  // 0: not known
};

bool has_prompt(const GenerateOptions& options) {
  return options.request.prompt || !options.prompt_file.empty() || !options.question.empty();
}

// Counts the tokens of the prompt as `generate` would send it.
int count_prompt(Client& client, GenerateOptions generate, Lengths& lengths) {
  if (const int code = assemble_prompt(client, generate); code != kGood) return code;
  v1::GenerateRequest request;
  if (std::string error = build_request(generate.request, request); !error.empty()) return usage_error(error);
  const auto tokens = client.tokenize(tokenize_request(request));
  if (!tokens) return fail(client, tokens.error);
  lengths.prompt = static_cast<uint32_t>(tokens->token_ids_size());
  if (request.has_truncate_prompt_tokens()) lengths.prompt = std::min(lengths.prompt, request.truncate_prompt_tokens());
  lengths.model = tokens->max_model_len();
  return kGood;
}

int find_lengths(Client& client, const EstimateOptions& options, Lengths& lengths) {
  const bool prompt = has_prompt(options.generate);
  if (prompt == options.prompt_tokens.has_value()) {
    return usage_error(
        prompt ? "a prompt and --prompt-tokens exclude each other"
               : "no prompt: give it as an argument, with --prompt-file or, its length alone, with --prompt-tokens");
  }
  if (prompt) {
    if (const int code = count_prompt(client, options.generate, lengths); code != kGood) return code;
  } else {
    lengths.prompt = *options.prompt_tokens;
    if (!options.max_tokens) {
      int code = kGood;
      const std::optional<v1::Model> model = find_model(client, options.generate.request.model, code);
      if (code != kGood) return code;
      if (model) lengths.model = model->max_model_len();
    }
  }
  lengths.answer = options.max_tokens.value_or(kDefaultMaxTokens);
  // Where nothing is left the server's refusal says so.
  if (!options.max_tokens && lengths.model > lengths.prompt)
    lengths.answer = std::min(lengths.answer, lengths.model - lengths.prompt);
  return kGood;
}

std::string lengths_text(const EstimateOptions& options, const Lengths& lengths) {
  std::string text = absl::StrCat("prompt of ", lengths.prompt, " tokens, answer of up to ", lengths.answer);
  if (options.max_tokens) return text + "\n";
  absl::StrAppend(&text, lengths.answer < kDefaultMaxTokens && lengths.model > lengths.prompt
                             ? absl::StrCat(" (what the model's ", lengths.model, " leave")
                             : " (the default");
  return text + "; --max-tokens sets another)\n";
}

// What was said on the command line of the prompt and the model, for a command that makes the request.
std::vector<std::string> request_words(const GenerateOptions& options, bool prompt) {
  std::vector<std::string> words;
  const auto add = [&](const char* flag, const std::string& value) {
    if (!value.empty()) words.insert(words.end(), {flag, value});
  };
  add("--prompt-file", options.prompt_file.empty() && !prompt ? "FILE" : options.prompt_file);
  add("--question", options.question);
  add("--system", options.system);
  add("--model", options.request.model);
  if (options.chat) words.emplace_back("--chat");
  if (options.raw) words.emplace_back("--raw");
  if (options.request.truncate_prompt_tokens)
    add("--truncate-prompt-tokens", absl::StrCat(*options.request.truncate_prompt_tokens));
  return words;
}

std::string generate_command(const Client& client, const EstimateOptions& options, const Lengths& lengths,
                             const v1::CachePolicy& policy) {
  const GenerateOptions& generate = options.generate;
  std::vector<std::string> words{"pyramidkv"};
  const char* server = std::getenv("PYRAMIDKV_SERVER");
  if (client.target() != (server ? server : kUsualServer)) words.insert(words.end(), {"--server", client.target()});
  words.emplace_back("generate");
  for (std::vector<std::string> more : {request_words(generate, !options.prompt_tokens), policy_flags(policy)})
    words.insert(words.end(), more.begin(), more.end());
  words.insert(words.end(), {"--max-tokens", absl::StrCat(lengths.answer)});
  if (const auto& prompt = generate.request.prompt) {
    if (absl::StartsWith(*prompt, "-")) words.emplace_back("--");
    words.push_back(*prompt);
  }
  return shell_command(words);
}

// The policies of --policies or, where there are none, the one that the other options make.
std::string chosen_policies(const EstimateOptions& options, std::vector<EstimateRow>& rows) {
  std::vector<NamedPolicy> policies;
  if (options.policies.empty()) {
    NamedPolicy& only = policies.emplace_back();
    if (std::string error = build_policy(options.generate.request.cache, only.policy); !error.empty()) return error;
  } else if (std::string error = parse_policies(options.policies, options.generate.request.cache, policies);
             !error.empty()) {
    return error;
  }
  for (NamedPolicy& named : policies)
    rows.push_back({.name = std::move(named.text), .policy = std::move(named.policy)});
  return "";
}

// Puts the smallest size that `--budget` can have in the place of the server's figure, which is of the scope that the
// row's own budget has: a budget in bytes has another one where none is named.
void correct_smallest_budget(Client& client, v1::EstimateCacheRequest request, EstimateRow& row) {
  v1::EstimateCacheResponse& estimate = row.estimate;
  if (estimate.smallest_budget_tokens() == 0) return;
  v1::CacheBudget& budget = *request.mutable_cache_policy()->mutable_budget();
  budget.clear_max_bytes();
  budget.clear_allow_shortfall();
  const auto ask = [&](uint64_t bytes) {
    budget.set_bytes(bytes);
    return client.estimate_cache(request);
  };
  if (!row.policy.budget().has_bytes()) {
    const auto least = ask(1);
    estimate.set_smallest_budget_bytes(least ? least->smallest_budget_bytes() : 0);  // 0: it takes none in bytes
  }
  if (estimate.admissible_ever() || estimate.smallest_budget_bytes() == 0) return;
  const auto smallest = ask(estimate.smallest_budget_bytes());
  row.smallest_bytes_fit = smallest && smallest->admissible_ever();
}

int estimate_rows(Client& client, const EstimateOptions& options, const Lengths& lengths,
                  std::vector<EstimateRow>& rows) {
  for (EstimateRow& row : rows) {
    v1::EstimateCacheRequest request;
    request.set_model(options.generate.request.model);
    request.set_prompt_tokens(lengths.prompt);
    request.set_max_tokens(lengths.answer);
    if (row.policy.ByteSizeLong() > 0) *request.mutable_cache_policy() = row.policy;
    // Which tokens a system message has, and so what pinning it costs, only a request itself can tell.
    request.mutable_cache_policy()->clear_pin_system_message();
    if (request.cache_policy().ByteSizeLong() == 0) request.clear_cache_policy();
    auto result = client.estimate_cache(request);
    if (!result) {
      if (!row.name.empty()) std::cerr << row.name << ":\n";
      return fail(client, result.error, {.max_tokens = lengths.answer});
    }
    row.estimate = *std::move(result.value);
    if (!options.generate.json) correct_smallest_budget(client, request, row);
  }
  return kGood;
}

}  // namespace

int run_estimate(Client& client, EstimateOptions options) {
  std::vector<EstimateRow> rows;
  if (std::string error = chosen_policies(options, rows); !error.empty()) return usage_error(error);
  if (options.generate.request.cache.pin_system)
    std::cerr << "pyramidkv: --pin-system is left out of the estimate, which sees no chat\n";
  std::vector<const v1::CachePolicy*> policies;
  for (const EstimateRow& row : rows) policies.push_back(&row.policy);
  if (options.generate.request.cache.preset.empty()) {
    if (const int code = check_presets(client, policies); code != kGood) return code;
  }
  Lengths lengths;
  if (const int code = find_lengths(client, options, lengths); code != kGood) return code;
  if (const int code = estimate_rows(client, options, lengths, rows); code != kGood) return code;
  if (options.generate.json) {
    for (const EstimateRow& row : rows) std::cout << to_json(row.estimate, false) << "\n";
    return kGood;
  }
  std::cout << lengths_text(options, lengths);
  if (options.policies.empty()) {
    std::cout << estimate_text(rows[0].estimate, options.layers);
  } else {
    std::cout << "\n" << estimate_table(rows);
    for (const EstimateRow& row : rows) {
      if (options.layers) std::cout << "\n" << row.name << "\n" << layer_budgets(row.estimate);
    }
  }
  const std::optional<size_t> best = best_fitting(rows);
  std::cout << "\n" << estimate_verdict(rows, best) << "\n";
  if (best) std::cout << "  " << generate_command(client, options, lengths, rows[*best].policy) << "\n";
  return kGood;
}

}  // namespace pkv::client
