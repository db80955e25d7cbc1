// The `pyramidkv` command line: words to options, options to a command.
#include <CLI/CLI.hpp>
#include <functional>
#include <iostream>
#include <string>
#include <vector>

#include "client/commands.h"
#include "client/library_log.h"
#include "client/options.h"
#include "client/words.h"

namespace pkv::client {
namespace {

// A command, and what runs it once the words are read.
struct Command {
  CLI::App* app;
  std::function<int(Client&)> run;
};

// Where the words go.
struct Options {
  GenerateOptions generate, chat;
  EstimateOptions estimate;
  CompareOptions compare;
  InspectOptions inspect;
  TokenizeOptions tokenize;
  bool json = false, include_requests = false, layers = false;
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
      app.add_subcommand("compare", "One prompt under several policies: what each keeps, and what it costs the answer");
  command
      ->add_option(
          "--policies", options.policies,
          "NAME[:BUDGET[:SCOPE]] separated by commas, the baseline first: full,pyramidkv:128,snapkv:12%,h2o:4MiB:total")
      ->required();
  add_prompt_options(*command, options.generate);
  add_common_options(*command, options.generate);
  add_budget_options(*command, options.generate.request.cache);
  add_length_options(*command, options.generate.request);
  return {command, [&options](Client& client) { return run_compare(client, options); }};
}

Command add_estimate(CLI::App& app, EstimateOptions& options) {
  CLI::App* command = app.add_subcommand("estimate", "What a request would cost, before it is made");
  command->add_option("--prompt-tokens", options.prompt_tokens, "Length of the prompt")->required();
  command->add_option("--max-tokens", options.max_tokens,
                      "Length of the answer at most [256, or what the model leaves]");
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
  add_sampling_options(*command, options.generate);
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

std::vector<Command> add_commands(CLI::App& app, Options& options) {
  CLI::App* models = app.add_subcommand("models", "What the server hosts");
  CLI::App* policies = app.add_subcommand("policies", "Cache policies and their parameters");
  CLI::App* stats = app.add_subcommand("stats", "The server's state and memory");
  stats->add_flag("--requests", options.include_requests, "A row for every request");
  for (CLI::App* command : {models, policies, stats})
    command->add_flag("--json", options.json, "Print the reply as proto3 JSON");
  return {add_generate(app, options.generate),
          add_chat(app, options.chat),
          add_estimate(app, options.estimate),
          add_compare(app, options.compare),
          add_inspect(app, options.inspect),
          add_tokenize(app, options.tokenize),
          add_report(app, options),
          {models, [&options](Client& client) { return run_models(client, options.json); }},
          {policies, [&options](Client& client) { return run_policies(client, options.json); }},
          {stats, [&options](Client& client) { return run_stats(client, options.include_requests, options.json); }}};
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
  Options options;
  const std::vector<Command> commands = add_commands(app, options);
  std::vector<std::string> words(argv + 1, argv + argc);
  complete_report_option(words);
  try {
    app.parse(std::vector<std::string>(words.rbegin(), words.rend()));  // CLI11 takes them from the back
  } catch (const CLI::ParseError& error) {
    return end_parse(app, error, words);
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
