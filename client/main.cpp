// The `pyramidkv` command line: words to options, options to a command.
#include <CLI/CLI.hpp>
#include <functional>

#include "client/commands.h"

namespace pkv::client {
namespace {

// Options whose value is one word each time they are given, so that a prompt behind them stays a prompt.
void add_repeated(CLI::App& app, const char* name, std::vector<std::string>& words, const char* help) {
  app.add_option(name, words, help)->allow_extra_args(false)->take_all();
}

// What a budget covers and spares; holds for every policy.
void add_budget_options(CLI::App& app, PolicyOptions& cache) {
  app.add_option("--budget", cache.budget,
                 "Memory: 128 (entries per head), 12% (of the prompt), 4MiB or recall:0.95 (of the attention)");
  app.add_option("--scope", cache.scope, "What the budget covers: prompt or total (prompt and answer)");
  app.add_option("--interval", cache.interval_tokens, "With scope total: score anew every so many generated tokens");
  app.add_option("--max-bytes", cache.max_bytes, "Ceiling of a budget by recall, e.g. 4MiB");
  app.add_flag("--allow-shortfall", cache.allow_shortfall, "At that ceiling keep less attention instead of failing");
  add_repeated(app, "--pin", cache.pins, "BEGIN:END, prompt positions that are never evicted; may be repeated");
  app.add_option("--kv-dtype", cache.kv_dtype, "Cache entries: f16, f32, ...");
}

void add_policy_options(CLI::App& app, PolicyOptions& cache) {
  app.add_option("--policy", cache.policy,
                 "Cache policy or preset: full, snapkv, pyramidkv, ... (see 'pyramidkv policies')");
  app.add_option("--preset", cache.preset, "Policy preset of the server's configuration");
  add_budget_options(app, cache);
  add_repeated(app, "--param", cache.params,
               "KEY=VALUE, a parameter of the policy; may be repeated (see 'pyramidkv policies')");
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
        "Short for --param " + key + "...");
  }
}

void add_sampling_options(CLI::App& app, RequestOptions& request) {
  app.add_option("--max-tokens", request.max_tokens, "Generate at most this many tokens");
  app.add_option("--min-tokens", request.min_tokens, "No end of text before this many tokens");
  app.add_option("--temperature", request.temperature, "0 is greedy");
  app.add_option("--top-p", request.top_p, "Nucleus sampling, (0, 1]");
  app.add_option("--top-k", request.top_k, "0 is all");
  app.add_option("--min-p", request.min_p, "Relative to the best token, [0, 1)");
  app.add_option("--repetition-penalty", request.repetition_penalty, "Over 0; 1 is none");
  app.add_option("--frequency-penalty", request.frequency_penalty, "-2 to 2");
  app.add_option("--presence-penalty", request.presence_penalty, "-2 to 2");
  app.add_option("--seed", request.seed, "Seed of the sampler");
  add_repeated(app, "--stop", request.stop, "Stop string; may be repeated");
  app.add_flag("--ignore-eos", request.ignore_eos, "Go on behind the end token");
}

// Model, system message, output: of every command that generates.
void add_common_options(CLI::App& app, GenerateOptions& options) {
  app.add_option("--model", options.request.model, "Model id; the server's own where not given");
  app.add_option("--system", options.system, "System message");
  app.add_flag("--pin-system", options.request.cache.pin_system, "Never evict the system message");
  app.add_flag("--json", options.json, "Print replies as proto3 JSON, streams one event a line");
}

void add_prompt_options(CLI::App& app, GenerateOptions& options) {
  app.add_option("prompt", options.request.prompt, "The prompt");
  app.add_option("--prompt-file", options.prompt_file, "File with the prompt; - is standard input");
  app.add_option("--question", options.question, "Question about the prompt; both go as one chat message");
  app.add_flag("--chat", options.chat, "Send the prompt as a chat message, in the model's own format");
  app.add_option("--truncate-prompt-tokens", options.request.truncate_prompt_tokens,
                 "Keep only the last so many prompt tokens");
}

void add_report_option(CLI::App& app, GenerateOptions& options) {
  app.add_option("--report", options.request.report, "Print the cache report: summary, layers or positions")
      ->expected(0, 1)
      ->default_str("summary")
      ->check(CLI::IsMember({"none", "summary", "layers", "positions"}));
}

// `--report` alone means the summary.
void complete_report(const CLI::App& app, GenerateOptions& options) {
  if (app.count("--report") > 0 && options.request.report.empty()) options.request.report = "summary";
}

// A command, and what runs it once the words are read.
struct Command {
  CLI::App* app;
  std::function<int(Client&)> run;
};

// What the calls of a load are.
void add_bench_requests(CLI::App& app, BenchOptions& options) {
  app.add_option("--policies", options.policies,
                 "Mix: NAME[:BUDGET[:SCOPE]][@WEIGHT] separated by commas; the server's default where not given");
  app.add_option("--prompt-tokens", options.prompt_tokens, LengthDistribution::forms())->capture_default_str();
  app.add_option("--max-tokens", options.max_tokens, "As --prompt-tokens, of the answers")->capture_default_str();
  app.add_option("--prompt-file", options.prompt_file, "Text that prompts are cut from, at random places");
  app.add_option("--prompt-token-ids", options.prompt_token_ids, "text: of that text; random: any tokens")
      ->capture_default_str();
  app.add_option("--model", options.model, "Model id; the server's own where not given");
  app.add_flag("--ignore-eos,!--no-ignore-eos", options.ignore_eos,
               "Answers go on behind the end token and have the asked length (default)");
}

// When the calls are made.
void add_bench_load(CLI::App& app, BenchOptions& options) {
  app.add_option("--rate", options.rate, "Open loop: requests a second, or a ramp FROM:TO");
  app.add_option("--concurrency", options.concurrency, "Closed loop: so many calls at any time");
  app.add_option("--trace", options.trace,
                 R"(JSON lines {"at": seconds, "prompt_tokens": N or "prompt": TEXT, "max_tokens": N, "policy": P})");
  app.add_option("--speed", options.speed, "Factor of the trace's times")->capture_default_str();
  app.add_option("--spacing", options.spacing, "Of an open loop: poisson or constant")->capture_default_str();
  app.add_option("--duration", options.duration, "Seconds of arrivals that are measured");
  app.add_option("--requests", options.requests, "Requests that are measured");
  app.add_option("--warmup", options.warmup, "Seconds (10) or requests (20req) before them that are not")
      ->capture_default_str();
}

Command add_bench(CLI::App& app, BenchOptions& options) {
  CLI::App* command = app.add_subcommand("bench", "Put a server under load: latencies, throughput, bytes saved");
  add_bench_load(*command, options);
  add_bench_requests(*command, options);
  command->add_option("--channels", options.channels, "Separate connections")->capture_default_str();
  command->add_option("--max-in-flight", options.max_in_flight, "Calls that would be more are dropped and counted")
      ->capture_default_str();
  command->add_option("--timeout", options.timeout, "Deadline of every call, seconds");
  command->add_option("--service-config", options.service_config,
                      "File with a gRPC service config (JSON): balancing, health checking, retries");
  command->add_option("--ttft-limit", options.ttft_limit, "Goodput: seconds to the first token at most");
  command->add_option("--itl-limit", options.itl_limit, "Goodput: mean seconds between a call's tokens at most");
  command->add_option("--seed", options.seed, "Of arrivals, lengths, policies and prompts")->capture_default_str();
  command->add_option("--json", options.json, "Write the report as JSON to this file; -: to stdout, without the table");
  command->add_flag("--fail-on-error", options.fail_on_error, "Exit code 1 where any call was not answered");
  return {command, [&options](Client& client) { return run_bench(client, options); }};
}

// Where the words go.
struct Options {
  GenerateOptions generate, chat;
  EstimateOptions estimate;
  CompareOptions compare;
  InspectOptions inspect;
  TokenizeOptions tokenize;
  StatsOptions stats;
  HealthOptions health;
  BenchOptions bench;
  bool json = false, layers = false;
  std::vector<std::string> files;
};

Command add_generate(CLI::App& app, GenerateOptions& options) {
  CLI::App* command = app.add_subcommand("generate", "Answer one prompt");
  add_prompt_options(*command, options);
  add_common_options(*command, options);
  add_policy_options(*command, options.request.cache);
  add_sampling_options(*command, options.request);
  add_report_option(*command, options);
  command->add_flag("--stream", options.stream, "Print tokens as they come");
  command->add_flag("--logprobs", options.request.logprobs, "Ask for log-probabilities (with --json)");
  command->add_option("--top-logprobs", options.request.top_logprobs,
                      "... and those of the best so many tokens, at most 20");
  command->add_flag("--echo", options.request.echo, "Repeat the prompt in front of the answer");
  command->add_flag("--token-ids", options.request.token_ids, "Ask for token ids (with --json)");
  command->add_option("--save-reply", options.save_reply,
                      "Write the reply as JSON to this file, for 'pyramidkv report' and 'inspect'");
  return {command, [command, &options](Client& client) {
            complete_report(*command, options);
            return run_generate(client, options);
          }};
}

Command add_chat(CLI::App& app, GenerateOptions& options) {
  CLI::App* command = app.add_subcommand("chat", "Talk, one message a line");
  add_common_options(*command, options);
  add_policy_options(*command, options.request.cache);
  add_sampling_options(*command, options.request);
  add_report_option(*command, options);
  return {command, [command, &options](Client& client) {
            complete_report(*command, options);
            return run_chat(client, options);
          }};
}

Command add_compare(CLI::App& app, CompareOptions& options) {
  CLI::App* command =
      app.add_subcommand("compare", "One prompt under several policies: what each keeps, and what it costs the answer");
  command
      ->add_option(
          "--policies", options.policies,
          "NAME[:BUDGET[:SCOPE]] separated by commas, the baseline first: full,pyramidkv:128,snapkv:12%,h2o:4MiB:total")
      ->required();
  add_prompt_options(*command, options.generate);
  add_common_options(*command, options.generate);
  add_budget_options(*command, options.generate.request.cache);
  command->add_option("--max-tokens", options.generate.request.max_tokens, "Generate at most this many tokens");
  command->add_flag("--ignore-eos", options.generate.request.ignore_eos, "Go on behind the end token");
  return {command, [&options](Client& client) { return run_compare(client, options); }};
}

Command add_estimate(CLI::App& app, EstimateOptions& options) {
  CLI::App* command = app.add_subcommand("estimate", "What a request would cost, before it is made");
  command->add_option("--prompt-tokens", options.prompt_tokens, "Length of the prompt")->required();
  command->add_option("--max-tokens", options.max_tokens, "Length of the answer at most")->capture_default_str();
  command->add_option("--model", options.model, "Model id; the server's own where not given");
  add_policy_options(*command, options.cache);
  command
      ->add_option_function<std::string>(
          "--report", [&options](const std::string& word) { options.layers = word == "layers"; },
          "summary, or layers: also the budget of every layer")
      ->check(CLI::IsMember({"summary", "layers"}));
  command->add_flag("--json", options.json, "Print the reply as proto3 JSON");
  return {command, [&options](Client& client) { return run_estimate(client, options); }};
}

Command add_inspect(CLI::App& app, InspectOptions& options) {
  CLI::App* command =
      app.add_subcommand("inspect", "Answer one prompt and write a page that shows which entries were kept");
  command->add_option("--output", options.output, "The HTML file")->required();
  command->add_option("--from-reply", options.from_reply,
                      "Show this saved reply ('generate --report positions --save-reply'); asks no server");
  command->add_flag("--tokens", options.tokens, "Also fetch the prompt's token texts and show them where one points");
  add_prompt_options(*command, options.generate);
  add_common_options(*command, options.generate);
  add_policy_options(*command, options.generate.request.cache);
  add_sampling_options(*command, options.generate.request);
  return {command, [&options](Client& client) { return run_inspect(client, options); }};
}

Command add_tokenize(CLI::App& app, TokenizeOptions& options) {
  CLI::App* command = app.add_subcommand("tokenize", "Text to token ids, or back with --ids");
  command->add_option("text", options.text, "The text");
  command->add_option("--file", options.file, "File with the text; - is standard input");
  command->add_option("--ids", options.ids, "Token ids to turn into text");
  command->add_option("--model", options.model, "Model id");
  command->add_flag("--json", options.json, "Print the reply as proto3 JSON");
  return {command, [&options](Client& client) { return run_tokenize(client, options); }};
}

Command add_report(CLI::App& app, Options& options) {
  CLI::App* command = app.add_subcommand("report", "Print saved replies side by side");
  command->add_option("files", options.files, "Files written by 'generate --save-reply'")->required();
  command->add_flag("--layers", options.layers, "Also the entries kept per layer");
  return {command, [&options](Client&) { return run_report(options.files, options.layers); }};
}

Command add_stats(CLI::App& app, StatsOptions& options) {
  CLI::App* command = app.add_subcommand("stats", "The server's state and memory");
  command->add_flag("--requests", options.include_requests, "A row for every request");
  CLI::Option* watch = command->add_flag("--watch", options.watch,
                                         "Again and again: drawn in place on a terminal, else a line each time");
  command->add_option("--interval", options.interval, "Time between two, 50ms to 1h")
      ->capture_default_str()
      ->needs(watch);
  command->add_option("--count", options.count, "End after so many")->check(CLI::Range(1, 1'000'000'000))->needs(watch);
  command->add_flag("--json", options.json, "Print replies as proto3 JSON, one a line");
  return {command, [&options](Client& client) {
            return options.watch ? run_watch(client, options) : run_stats(client, options);
          }};
}

Command add_health(CLI::App& app, HealthOptions& options) {
  CLI::App* command = app.add_subcommand(
      "health",
      "Ask as a probe does; ends with 0 where the server says SERVING, 1 where it does not, 3 where none answers");
  command->add_option("--service", options.service,
                      "pyramidkv.v1.GenerationService, live, ...; the whole server where not given");
  command->add_option("--timeout", options.timeout_seconds, "Seconds to wait for the answer")
      ->capture_default_str()
      ->check(CLI::Range(0.001, 3600.0));
  return {command, [&options](Client& client) { return run_health(client, options); }};
}

std::vector<Command> add_commands(CLI::App& app, Options& options) {
  CLI::App* models = app.add_subcommand("models", "What the server hosts");
  CLI::App* policies = app.add_subcommand("policies", "Cache policies and their parameters");
  CLI::App* version = app.add_subcommand("version", "This program's version and the server's");
  for (CLI::App* command : {models, policies})
    command->add_flag("--json", options.json, "Print the reply as proto3 JSON");
  return {add_generate(app, options.generate),
          add_chat(app, options.chat),
          add_estimate(app, options.estimate),
          add_compare(app, options.compare),
          add_inspect(app, options.inspect),
          add_tokenize(app, options.tokenize),
          add_report(app, options),
          add_bench(app, options.bench),
          {models, [&options](Client& client) { return run_models(client, options.json); }},
          {policies, [&options](Client& client) { return run_policies(client, options.json); }},
          add_stats(app, options.stats),
          add_health(app, options.health),
          {version, [](Client& client) { return run_version(client); }}};
}

int run(int argc, char** argv) {
  CLI::App app("Client of PyramidKV Server");
  app.require_subcommand(1);
  app.fallthrough();
  std::string server = "127.0.0.1:50051";
  app.add_option("--server", server, "HOST:PORT")->envname("PYRAMIDKV_SERVER")->capture_default_str();
  app.set_version_flag("--version", program_version());
  Options options;
  const std::vector<Command> commands = add_commands(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kGood : kUsage;
  }
  Client client(server);
  for (const Command& command : commands) {
    if (*command.app) return command.run(client);
  }
  return kUsage;
}

}  // namespace
}  // namespace pkv::client

int main(int argc, char** argv) { return pkv::client::run(argc, argv); }
