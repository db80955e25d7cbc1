#include "client/cli/options.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/words.h"

namespace pkv::client {
namespace {

constexpr char kPrompt[] = "Prompt", kCache[] = "Cache policy", kSampling[] = "Sampling", kOutput[] = "Output";

// One value read by `parse`, which says what is wrong with it; the last one counts.
template <typename Value, typename Parse>
CLI::Option* add_value(CLI::App& app, const char* name, std::optional<Value>& value, const char* help, Parse parse,
                       const char* type, const char* expected) {
  const auto read = [&value, parse, name, expected](const std::string& word) {
    Value parsed{};
    if (!parse(word, &parsed))
      throw CLI::ValidationError(std::string(name).substr(std::string(name).rfind(',') + 1),
                                 absl::StrCat("'", word, "' is not ", expected));
    value = parsed;
  };
  return app.add_option_function<std::string>(name, read, help)
      ->type_name(type)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
}

CLI::Option* add_count(CLI::App& app, const char* name, std::optional<uint32_t>& value, const char* help) {
  const auto parse = [](const std::string& word, uint32_t* out) { return absl::SimpleAtoi(word, out); };
  return add_value(app, name, value, help, parse, "N", "a whole number from 0 to 4294967295");
}

CLI::Option* add_real(CLI::App& app, const char* name, std::optional<float>& value, const char* help) {
  const auto parse = [](const std::string& word, float* out) { return absl::SimpleAtof(word, out); };
  return add_value(app, name, value, help, parse, "X", "a number");
}

void add_parameter_options(CLI::App& app, PolicyOptions& cache) {
  add_repeated(app, "--param", cache.params, "A parameter of the policy; may be repeated (see 'pyramidkv policies')")
      ->type_name("KEY=VALUE")
      ->group(kCache);
  struct ShortForm {
    const char* option;
    const char* parameter;
  };
  constexpr ShortForm kShortForms[] = {
      {"--window", "window_tokens"},          {"--kernel", "kernel_size"}, {"--pooling", "pooling"},
      {"--aggregation", "group_aggregation"}, {"--beta", "beta"},          {"--allocation", "allocation"}};
  for (const auto& [option, parameter] : kShortForms) {
    const std::string key = std::string(parameter) + "=";
    app.add_option_function<std::string>(
           option, [&cache, key](const std::string& value) { cache.params.push_back(key + value); },
           "Short for --param " + key + "...")
        ->type_name("VALUE")
        ->group(kCache);
  }
}

}  // namespace

CLI::Option* add_repeated(CLI::App& app, const char* name, std::vector<std::string>& words, const char* help) {
  return app.add_option(name, words, help)->type_name("TEXT")->allow_extra_args(false)->take_all();
}

void add_budget_options(CLI::App& app, PolicyOptions& cache) {
  const auto add = [&](const char* name, std::string& word, const char* type, const char* help) {
    app.add_option(name, word, help)->type_name(type)->group(kCache);
  };
  add("--budget", cache.budget, "BUDGET",
      "128 (entries per layer and KV head), 12% (of the prompt), 4MiB, 512k (bytes, at every instant) or recall:0.95 "
      "(of "
      "the attention); not given: the server's share of the prompt");
  add("--scope", cache.scope, "SCOPE",
      "What the budget covers: prompt or total (prompt and answer) [prompt; bytes: total]");
  add_count(app, "--interval", cache.interval_tokens,
            "With scope total: score anew every so many generated tokens [64]")
      ->group(kCache);
  add("--max-bytes", cache.max_bytes, "SIZE", "Ceiling of a budget by recall: 4MiB");
  app.add_flag("--allow-shortfall", cache.allow_shortfall, "At that ceiling keep less attention instead of failing")
      ->group(kCache);
  add_repeated(app, "--pin", cache.pins, "Prompt positions that are never evicted; may be repeated")
      ->type_name("BEGIN:END")
      ->group(kCache);
  add("--prefill", cache.prefill, "HOW", "How the prompt is read: dense or vertical_slash (sparse) [the server's]");
  add_count(app, "--prefill-tokens", cache.prefill_tokens,
            "With vertical_slash: entries that a row of the prompt attends to [2048]")
      ->group(kCache);
  add("--kv-dtype", cache.kv_dtype, "TYPE", "Cache entries: f16, bf16, f32 or k8v4 [the server's]");
}

void add_policy_options(CLI::App& app, PolicyOptions& cache) {
  app.add_option("--policy", cache.policy,
                 "full, snapkv, pyramidkv, ... or a preset, see 'pyramidkv policies' [the server's, as a rule full]")
      ->type_name("NAME")
      ->group(kCache);
  app.add_option("--preset", cache.preset, "A preset of the server, also one that is named like a policy")
      ->type_name("NAME")
      ->group(kCache);
  add_budget_options(app, cache);
  add_parameter_options(app, cache);
}

void add_length_options(CLI::App& app, RequestOptions& request) {
  add_count(app, "-n,--max-tokens", request.max_tokens, "Length of the answer at most, in tokens [256]")
      ->group(kSampling);
  app.add_flag("--ignore-eos", request.ignore_eos, "Go on behind the end token")->group(kSampling);
  app.add_option_function<std::vector<std::string>>(
         "--stop-id",
         [&request](const std::vector<std::string>& words) {
           for (const std::string& word : words) {
             uint32_t id = 0;
             if (!absl::SimpleAtoi(word, &id))
               throw CLI::ValidationError("--stop-id", absl::StrCat("'", word, "' is no token id"));
             request.stop_ids.push_back(id);
           }
         },
         "Token id that ends the answer; may be repeated")
      ->type_name("ID")
      ->allow_extra_args(false)
      ->take_all()
      ->group(kSampling);
}

void add_token_ids(CLI::App& app, std::vector<uint32_t>& ids) {
  app.add_option_function<std::vector<std::string>>(
         "--ids",
         [&ids](const std::vector<std::string>& words) {
           for (const std::string& word : words) {
             for (const auto part : absl::StrSplit(word, absl::ByAnyChar(", \n"), absl::SkipWhitespace())) {
               uint32_t id = 0;
               if (!absl::SimpleAtoi(part, &id))
                 throw CLI::ValidationError(
                     "--ids", absl::StrCat("'", part, "' is no token id, which is a whole number from 0"));
               ids.push_back(id);
             }
           }
           if (ids.empty()) throw CLI::ValidationError("--ids", "no token ids are given");
         },
         "Token ids to turn into text, with spaces or commas between them: --ids 504,3575 282")
      ->type_name("ID");
}

void add_sampling_options(CLI::App& app, GenerateOptions& options) {
  RequestOptions& request = options.request;
  add_length_options(app, request);
  add_count(app, "--min-tokens", request.min_tokens, "No end of text before so many tokens [0]")->group(kSampling);
  add_real(app, "--temp,--temperature", request.temperature,
           "0 is greedy [0; 1 with --top-p, --top-k, --min-p or --seed]")
      ->group(kSampling);
  add_real(app, "--top-p", request.top_p, "Nucleus sampling, over 0 to 1 [1]")->group(kSampling);
  add_count(app, "--top-k", request.top_k, "Only the so many best tokens; 0 is all [0]")->group(kSampling);
  add_real(app, "--min-p", request.min_p, "Relative to the best token, 0 to below 1 [0]")->group(kSampling);
  add_real(app, "--repeat-penalty,--repetition-penalty", request.repetition_penalty, "Over 0; 1 is none [1]")
      ->group(kSampling);
  add_real(app, "--frequency-penalty", request.frequency_penalty, "-2 to 2 [0]")->group(kSampling);
  add_real(app, "--presence-penalty", request.presence_penalty, "-2 to 2 [0]")->group(kSampling);
  app.add_option("-s,--seed", options.seed, "Of the sampler, 0 to 2^64-1; -1 is random [-1]")
      ->type_name("N")
      ->group(kSampling);
  add_repeated(app, "--stop", request.stop, "Text that ends the answer; may be repeated")->group(kSampling);
  add_repeated(app, "--logit-bias", request.logit_bias, "-100 to 100, added to a token's logit; may be repeated")
      ->type_name("ID:VALUE")
      ->group(kSampling);
}

void add_common_options(CLI::App& app, GenerateOptions& options) {
  app.add_option("--model", options.request.model, "Model id [the server's own]")->type_name("ID");
  const auto seconds = [](const std::string& word, double* out) {
    return absl::SimpleAtod(word, out) && *out > 0 && *out <= 1e9;
  };
  add_value(app, "--deadline", options.deadline, "The answer has to be there after so many seconds [none]", seconds,
            "SECONDS", "a number of seconds over 0");
  const auto whole = [](const std::string& word, int32_t* out) { return absl::SimpleAtoi(word, out); };
  add_value(app, "--priority", options.request.priority, "Of those that wait the lower goes first, -100 to 100 [0]",
            whole, "N", "a whole number");
  app.add_option("--system", options.system, "System message")->type_name("TEXT")->group(kPrompt);
  app.add_flag("--pin-system", options.request.cache.pin_system, "Never evict the system message")->group(kCache);
  app.add_flag("--json", options.json, "Print replies as proto3 JSON, streams one event a line")->group(kOutput);
  app.add_flag("-q,--quiet", options.quiet, "No progress, summary or hints on standard error")->group(kOutput);
}

void add_prompt_options(CLI::App& app, GenerateOptions& options) {
  app.add_option("-p,--prompt,prompt", options.request.prompt,
                 "The prompt; without any, standard input where it is no terminal")
      ->type_name("TEXT")
      ->group(kPrompt);
  app.add_option("-f,--file,--prompt-file", options.prompt_file, "File with the prompt; - is standard input")
      ->type_name("FILE")
      ->group(kPrompt);
  app.add_option("--question", options.question, "Question about the prompt, put behind it")
      ->type_name("TEXT")
      ->group(kPrompt);
  app.add_flag("--raw", options.raw, "Send the prompt as it is, without the model's chat format")->group(kPrompt);
  app.add_flag("--chat", options.chat, "Insist on the chat format, which is the default where the model has one")
      ->group(kPrompt);
  add_count(app, "--truncate-prompt-tokens", options.request.truncate_prompt_tokens,
            "Keep only the last so many prompt tokens")
      ->group(kPrompt);
}

void add_report_option(CLI::App& app, GenerateOptions& options) {
  app.add_option("--report", options.request.report, "Print the cache report on standard error [none; alone: summary]")
      ->type_name("DETAIL:{none,summary,layers,positions}")
      ->group(kOutput)
      ->check([](const std::string& word) -> std::string {
        const std::vector<std::string> kWords = {"none", "summary", "layers", "positions"};
        for (const std::string& known : kWords) {
          if (word == known) return "";
        }
        return absl::StrCat("'", word, "' is not none, summary, layers or positions", did_you_mean(word, kWords));
      });
}

void add_token_options(CLI::App& app, RequestOptions& request) {
  app.add_flag("--logprobs", request.logprobs, "Also print every token's log-probability")->group(kOutput);
  add_count(app, "--top-logprobs", request.top_logprobs, "... and those of the so many likeliest, 20 at most")
      ->group(kOutput);
  app.add_flag("--echo", request.echo, "Repeat the prompt in front of the answer")->group(kOutput);
  app.add_flag("--token-ids", request.token_ids, "Also print the answer's token ids")->group(kOutput);
}

std::string help_footer(const std::vector<std::string>& examples) {
  std::string text;
  if (!examples.empty()) absl::StrAppend(&text, "Examples:\n");
  for (const std::string& example : examples) absl::StrAppend(&text, "  pyramidkv ", example, "\n");
  absl::StrAppend(
      &text,
      "\nEvery command takes --server HOST:PORT ($PYRAMIDKV_SERVER) [127.0.0.1:50051], --api-key-file FILE\n"
      "($PYRAMIDKV_API_KEY), --tls, --ca FILE, --cert FILE and --key FILE ('pyramidkv --help').\n"
      "Exit codes: 0 good; 1 the server refused or failed the call; 2 wrong usage; 3 server not reachable, or\n"
      "the connection lost. In brackets: what holds where an option is not given.");
  return text;
}

}  // namespace pkv::client
