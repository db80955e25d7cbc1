// The `pyramidkv` command line: words to options, options to a command.
#include <CLI/CLI.hpp>
#include <functional>
#include <iostream>
#include <string>
#include <vector>

#include "client/cli/access_options.h"
#include "client/cli/command_support.h"
#include "client/cli/commands.h"
#include "client/cli/library_log.h"
#include "client/cli/options.h"
#include "client/words.h"

namespace pkv::client {
namespace {

// A command, and what runs it once the words are read.
struct Command {
  CLI::App* app;
  std::function<int(Client&)> run;
};

// What the calls of a load are.
void add_bench_requests(CLI::App& app, BenchOptions& options) {
  app.add_option(
      "--policies", options.policies,
      "Mix: NAME[:BUDGET[:SCOPE[:FORMAT]]][@WEIGHT] separated by commas; the server's default where not given");
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
  PoliciesOptions policies;
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
  add_policy_options(*command, options.request.cache);
  add_sampling_options(*command, options);
  add_common_options(*command, options);
  add_report_option(*command, options);
  add_token_options(*command, options.request);
  constexpr char kOutput[] = "Output";
  command->add_flag("--stream", options.stream, "Print text as it comes, which is the default on a terminal")
      ->group(kOutput);
  command->add_flag("--no-stream", options.no_stream, "Print it when it is whole")->group(kOutput);
  command
      ->add_option("--save-reply", options.save_reply, "Write the reply as JSON, for 'pyramidkv report' and 'inspect'")
      ->type_name("FILE")
      ->group(kOutput);
  command->add_option("--request-id", options.request.request_id, "Name of the request in logs and 'stats --requests'")
      ->type_name("ID");
  command->footer(
      help_footer({"generate \"What is a KV cache?\"",
                   "generate -f paper.txt --question \"What is new?\" --policy pyramidkv --budget 256",
                   "generate -f paper.txt --question \"What is new?\" --policy snapkv --budget 4MiB --report",
                   "generate --temp 0.7 -n 64 -p \"A haiku about memory\"", "generate --raw \"Once upon a time\""}));
  return {command, [&options](Client& client) { return run_generate(client, options); }};
}

Command add_chat(CLI::App& app, GenerateOptions& options) {
  CLI::App* command = app.add_subcommand("chat", "Talk, one message a line; /help inside lists its commands");
  add_policy_options(*command, options.request.cache);
  add_sampling_options(*command, options);
  add_common_options(*command, options);
  add_report_option(*command, options);
  command->footer(help_footer(
      {"chat", "chat --system \"Answer in one sentence.\" --policy snapkv --budget 256", "chat < questions.txt"}));
  return {command, [&options](Client& client) { return run_chat(client, options); }};
}

Command add_compare(CLI::App& app, CompareOptions& options) {
  CLI::App* command =
      app.add_subcommand("compare",
                         "One prompt under several policies: what each keeps, and what it costs the answer. Answers "
                         "are greedy and end with tokens: no sampling options, --logit-bias or --stop");
  command
      ->add_option("--policies", options.policies,
                   "NAME[:BUDGET[:SCOPE[:FORMAT]]] separated by commas, the baseline first: "
                   "full,pyramidkv:128,snapkv:12%,h2o:4MiB:total")
      ->required();
  add_prompt_options(*command, options.generate);
  command->add_flag("--hide-question", options.hide_question,
                    "Put the question behind the cut: what policies keep that have not seen it");
  add_common_options(*command, options.generate);
  add_budget_options(*command, options.generate.request.cache);
  add_length_options(*command, options.generate.request);
  command->footer(
      help_footer({"compare --policies full,snapkv:256,pyramidkv:256 -f paper.txt --question \"What is new?\""}));
  return {command, [&options](Client& client) { return run_compare(client, options); }};
}

Command add_estimate(CLI::App& app, EstimateOptions& options) {
  CLI::App* command = app.add_subcommand("estimate", "What a request would cost, before it is made");
  command->add_option("--prompt-tokens", options.prompt_tokens, "Length of the prompt, instead of a prompt");
  add_prompt_options(*command, options.generate);
  command->add_option("--max-tokens", options.max_tokens,
                      "Length of the answer at most; 256, or what the prompt leaves of the model's length");
  add_common_options(*command, options.generate);
  CLI::Option* policies = command->add_option(
      "--policies", options.policies,
      "NAME[:BUDGET[:SCOPE[:FORMAT]]] separated by commas, a row each: full,pyramidkv:128,snapkv:12%,h2o:4MiB");
  add_policy_options(*command, options.generate.request.cache);
  for (const char* one : {"--policy", "--preset"}) policies->excludes(command->get_option(one));
  command
      ->add_option_function<std::string>(
          "--report", [&options](const std::string& word) { options.layers = word == "layers"; },
          "summary, or layers: also the budget of every layer")
      ->check(CLI::IsMember({"summary", "layers"}));
  command->footer(
      help_footer({"estimate --policies full,snapkv:12%,pyramidkv:128 -f paper.txt --question \"What is new?\"",
                   "estimate --prompt-tokens 8000 --policy snapkv --budget 4MiB --report layers"}));
  return {command, [&options](Client& client) { return run_estimate(client, options); }};
}

Command add_inspect(CLI::App& app, InspectOptions& options) {
  CLI::App* command = app.add_subcommand(
      "inspect", "Answer one prompt and write a page that shows which entries were kept, of one policy or several");
  command->add_option("--output", options.output, "The HTML file")->required();
  add_repeated(*command, "--from-reply", options.from_replies,
               "Show this saved reply ('generate --report positions --save-reply'); may be repeated; asks no server");
  command->add_flag("--tokens,!--no-tokens", options.tokens,
                    "Show the prompt's text, which is the default, or leave it out");
  CLI::Option* policies =
      command->add_option("--policies", options.policies,
                          "NAME[:BUDGET[:SCOPE[:FORMAT]]] separated by commas, side by side: snapkv:128,pyramidkv:128");
  add_prompt_options(*command, options.generate);
  add_common_options(*command, options.generate);
  add_policy_options(*command, options.generate.request.cache);
  for (const char* one : {"--policy", "--preset"}) policies->excludes(command->get_option(one));
  add_sampling_options(*command, options.generate);
  command->footer(help_footer(
      {"inspect --policies snapkv:256,pyramidkv:256 -f paper.txt --question \"What is new?\" --output kept.html"}));
  return {command, [&options](Client& client) { return run_inspect(client, options); }};
}

Command add_policies(CLI::App& app, PoliciesOptions& options) {
  CLI::App* command = app.add_subcommand("policies", "Cache policies and presets, or one of them with its parameters");
  command->add_option("name", options.name, "Tell about this one");
  command->add_flag("--json", options.json, "Print the reply as proto3 JSON");
  return {command, [&options](Client& client) { return run_policies(client, options); }};
}

Command add_tokenize(CLI::App& app, TokenizeOptions& options) {
  CLI::App* command = app.add_subcommand("tokenize", "Text to token ids, or back with --ids");
  command->add_option("text", options.text, "The text");
  command->add_option("--file", options.file, "File with the text; - is standard input");
  add_token_ids(*command, options.ids);
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
  CLI::App* version = app.add_subcommand("version", "This program's version and the server's");
  models->add_flag("--json", options.json, "Print the reply as proto3 JSON");
  return {add_generate(app, options.generate),
          add_chat(app, options.chat),
          add_estimate(app, options.estimate),
          add_compare(app, options.compare),
          add_inspect(app, options.inspect),
          add_tokenize(app, options.tokenize),
          add_report(app, options),
          add_bench(app, options.bench),
          {models, [&options](Client& client) { return run_models(client, options.json); }},
          add_policies(app, options.policies),
          add_stats(app, options.stats),
          add_health(app, options.health),
          {version, [](Client& client) { return run_version(client); }}};
}

KnownCommand known_command(const CLI::App& app) {
  KnownCommand known{.name = app.get_name()};
  for (const CLI::Option* option : app.get_options()) {
    for (const bool long_names : {true, false}) {
      for (const std::string& name : long_names ? option->get_lnames() : option->get_snames()) {
        known.options.push_back((long_names ? "--" : "-") + name);
        if (option->get_items_expected_max() > 0) known.values.push_back(known.options.back());
      }
    }
  }
  return known;
}

// A command line that cannot be read: help that was asked for, or what is wrong with it.
int end_parse(const CLI::App& app, const CLI::ParseError& error, const std::vector<std::string>& words) {
  if (error.get_exit_code() == 0) return app.exit(error);
  std::vector<KnownCommand> commands;
  std::string chosen;
  for (const CLI::App* command : app.get_subcommands({})) {
    commands.push_back(known_command(*command));
    if (*command) chosen = command->get_name();
  }
  std::string text = explain_command_line(words, known_command(app), commands);
  if (text.empty()) {
    text = error.what();
    if (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr) text += "\nA prompt of several words goes in quotes.";
    text += "\n'pyramidkv " + chosen + (chosen.empty() ? "--help'" : " --help'") + " shows how it is used.";
  }
  std::cerr << "pyramidkv: " << text << "\n";
  return kUsage;
}

int run(int argc, char** argv) {
  silence_libraries();
  CLI::App app("Client of PyramidKV Server, a language model server in which every request has its own cache budget",
               "pyramidkv");
  app.require_subcommand(1);
  app.fallthrough();
  app.footer(help_footer({"generate \"What is a KV cache?\"", "chat --policy snapkv --budget 256", "policies"}) +
             "\n'pyramidkv COMMAND --help' tells about a command.");
  std::string server = "127.0.0.1:50051";
  app.add_option("--server", server, "HOST:PORT")->envname("PYRAMIDKV_SERVER")->capture_default_str();
  AccessOptions access_options;
  add_access_options(app, access_options);
  app.set_version_flag("--version", program_version());
  Options options;
  const std::vector<Command> commands = add_commands(app, options);
  std::vector<std::string> words(argv + 1, argv + argc), names;
  for (const Command& command : commands) names.push_back(command.app->get_name());
  complete_help(words, names);
  complete_report_option(words);
  try {
    app.parse(std::vector<std::string>(words.rbegin(), words.rend()));  // CLI11 takes them from the back
  } catch (const CLI::ParseError& error) {
    return end_parse(app, error, words);
  }
  Access access;
  if (const std::string error = read_access(access_options, access); !error.empty()) return usage_error(error);
  Client client(server, access);
  for (const Command& command : commands) {
    if (*command.app) return command.run(client);
  }
  return kUsage;
}

}  // namespace
}  // namespace pkv::client

int main(int argc, char** argv) { return pkv::client::run(argc, argv); }
