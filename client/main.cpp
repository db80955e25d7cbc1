// The `pyramidkv` command line: words to options, options to a command.
#include <CLI/CLI.hpp>
#include <iostream>

#include "client/commands.h"

namespace pkv::client {
namespace {

void add_request_options(CLI::App& app, GenerateOptions& options) {
  RequestOptions& request = options.request;
  app.add_option("--model", request.model, "Model id; the server's own where not given");
  app.add_option("--policy", request.policy, "Cache policy: full, snapkv, pyramidkv, ... (see 'pyramidkv policies')");
  app.add_option("--preset", request.preset, "Policy preset of the server's configuration");
  app.add_option("--budget", request.budget, "Memory: 128 (entries per head), 12% (of the prompt) or 4MiB");
  app.add_option("--scope", request.scope, "What the budget covers: prompt or total");
  app.add_option("--window", request.window, "Observation window, tokens (snapkv, pyramidkv)");
  app.add_option("--kernel", request.kernel, "Pooling kernel, odd (snapkv, pyramidkv)");
  app.add_option("--pooling", request.pooling, "max, avg or none (snapkv, pyramidkv)");
  app.add_option("--aggregation", request.aggregation, "Over a group's query heads: mean, max or sum");
  app.add_option("--beta", request.beta, "Shape of the pyramid (pyramidkv)");
  app.add_option("--allocation", request.allocation, "exact or factory (pyramidkv)");
  app.add_option("--kv-dtype", request.kv_dtype, "Cache entries: f16 or f32");
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
  app.add_option("--stop", request.stop, "Stop string; may be repeated")->take_all();
  app.add_flag("--ignore-eos", request.ignore_eos, "Go on behind the end token");
  app.add_option("--report", request.report, "Print the cache report: summary, layers or positions")
      ->expected(0, 1)->default_str("summary")
      ->check(CLI::IsMember({"none", "summary", "layers", "positions"}));
  app.add_option("--system", options.system, "System message");
  app.add_flag("--json", options.json, "Print replies as proto3 JSON, streams one event a line");
}

void add_generate_options(CLI::App& app, GenerateOptions& options) {
  add_request_options(app, options);
  RequestOptions& request = options.request;
  app.add_option("prompt", request.prompt, "The prompt");
  app.add_option("--prompt-file", options.prompt_file, "File with the prompt; - is standard input");
  app.add_option("--question", options.question, "Question about the prompt; both go as one chat message");
  app.add_flag("--chat", options.chat, "Send the prompt as a chat message, in the model's own format");
  app.add_flag("--stream", options.stream, "Print tokens as they come");
  app.add_flag("--logprobs", request.logprobs, "Ask for log-probabilities (with --json)");
  app.add_option("--top-logprobs", request.top_logprobs, "... and those of the best so many tokens, at most 20");
  app.add_flag("--echo", request.echo, "Repeat the prompt in front of the answer");
  app.add_flag("--token-ids", request.token_ids, "Ask for token ids (with --json)");
  app.add_option("--truncate-prompt-tokens", request.truncate_prompt_tokens, "Keep only the last so many prompt tokens");
  app.add_option("--save-reply", options.save_reply, "Write the reply as JSON to this file, for 'pyramidkv report'");
}

int run(int argc, char** argv) {
  CLI::App app("Client of PyramidKV Server");
  app.require_subcommand(1);
  app.fallthrough();
  std::string server = "127.0.0.1:50051";
  app.add_option("--server", server, "HOST:PORT")->envname("PYRAMIDKV_SERVER")->capture_default_str();

  GenerateOptions generate, chat;
  TokenizeOptions tokenize;
  bool json = false, include_requests = false, layers = false;
  std::vector<std::string> files;

  CLI::App* generate_command = app.add_subcommand("generate", "Answer one prompt");
  add_generate_options(*generate_command, generate);
  CLI::App* chat_command = app.add_subcommand("chat", "Talk, one message a line");
  add_request_options(*chat_command, chat);
  CLI::App* tokenize_command = app.add_subcommand("tokenize", "Text to token ids, or back with --ids");
  tokenize_command->add_option("text", tokenize.text, "The text");
  tokenize_command->add_option("--file", tokenize.file, "File with the text; - is standard input");
  tokenize_command->add_option("--ids", tokenize.ids, "Token ids to turn into text");
  tokenize_command->add_option("--model", tokenize.model, "Model id");
  tokenize_command->add_flag("--json", tokenize.json, "Print the reply as proto3 JSON");
  CLI::App* models_command = app.add_subcommand("models", "What the server hosts");
  CLI::App* policies_command = app.add_subcommand("policies", "Cache policies and their parameters");
  CLI::App* stats_command = app.add_subcommand("stats", "The server's state and memory");
  stats_command->add_flag("--requests", include_requests, "A row for every request");
  for (CLI::App* command : {models_command, policies_command, stats_command}) {
    command->add_flag("--json", json, "Print the reply as proto3 JSON");
  }
  CLI::App* report_command = app.add_subcommand("report", "Print saved replies side by side");
  report_command->add_option("files", files, "Files written by 'generate --save-reply'")->required();
  report_command->add_flag("--layers", layers, "Also the entries kept per layer");

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kGood : kUsage;
  }
  // `--report` alone means the summary.
  for (auto [command, options] : {std::pair{generate_command, &generate}, std::pair{chat_command, &chat}}) {
    if (command->count("--report") > 0 && options->request.report.empty()) options->request.report = "summary";
  }
  Client client(server);
  if (*generate_command) return run_generate(client, std::move(generate));
  if (*chat_command) return run_chat(client, std::move(chat));
  if (*tokenize_command) return run_tokenize(client, tokenize);
  if (*models_command) return run_models(client, json);
  if (*policies_command) return run_policies(client, json);
  if (*stats_command) return run_stats(client, include_requests, json);
  return run_report(files, layers);
}

}  // namespace
}  // namespace pkv::client

int main(int argc, char** argv) { return pkv::client::run(argc, argv); }
