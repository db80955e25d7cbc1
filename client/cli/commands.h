// The commands of the `pyramidkv` program. Each returns the exit code: 0 good, 1 the server refused or failed the call,
// 2 wrong usage, 3 server not reachable or the connection lost. Answers go to stdout, everything else to stderr.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "client/bench/options.h"
#include "client/client.h"
#include "client/request_builder.h"

namespace pkv::client {

enum ExitCode : int { kGood = 0, kRpcError = 1, kUsage = 2, kUnreachable = 3 };

struct GenerateOptions {
  RequestOptions request;
  std::string prompt_file;  // "-": standard input
  std::string question;     // appended to the document
  std::string system;       // system message; needs the model's chat template
  // A prompt goes as a chat message where the model has a chat template, unless `raw`; `chat` insists on it.
  bool chat = false, raw = false;
  bool has_template = false;  // the model's, once it is known
  bool stream = false, no_stream = false;
  bool json = false, quiet = false;
  std::string report;              // as request.report where it is to be printed
  std::string seed;                // see parse_seed
  std::optional<double> deadline;  // seconds
  std::string save_reply;          // file that gets the reply as JSON, for `report`
};

struct TokenizeOptions {
  std::string model, text, file;
  std::vector<uint32_t> ids;  // detokenize these instead
  bool json = false;
};

struct EstimateOptions {
  GenerateOptions generate;               // prompt, system message, model, policy, json: as `generate` would send them
  std::optional<uint32_t> prompt_tokens;  // instead of a prompt
  std::optional<uint32_t> max_tokens;     // unset: as of a request that does not say
  std::string policies;                   // as in CompareOptions, a row each
  bool layers = false;                    // also the budget of every layer
};

struct CompareOptions {
  GenerateOptions generate;    // prompt, sampling; its policy options hold for every policy of the list that takes them
  std::string policies;        // NAME[:BUDGET[:SCOPE[:FORMAT]]],...; the first is the baseline
  bool hide_question = false;  // the policies cut their caches before they have seen it
};

struct InspectOptions {
  GenerateOptions generate;
  std::vector<std::string> from_replies;  // saved replies with positions; asks no server
  std::string policies;                   // as in CompareOptions, a heat map each
  std::string output;                     // the HTML file
  bool tokens = true;                     // also ask for the prompt's token texts
};

struct PoliciesOptions {
  std::string name;  // tell about this one
  bool json = false;
};

struct StatsOptions {
  bool watch = false;  // again and again; interval and count are for that
  std::string interval = "1s";
  uint64_t count = 0;  // end after so many; 0: never
  bool include_requests = false;
  bool json = false;
};

struct HealthOptions {
  std::string service;  // "": the whole server
  double timeout_seconds = 3;
};

int run_generate(Client& client, GenerateOptions options);
int run_chat(Client& client, GenerateOptions options);
int run_tokenize(Client& client, const TokenizeOptions& options);
int run_models(Client& client, bool json);
// The policies and presets there are, or one of them in detail.
int run_policies(Client& client, const PoliciesOptions& options);
int run_stats(Client& client, const StatsOptions& options);
// The state again and again: a view on a terminal, else a line each time. A server that goes away is one that is not
// reachable.
int run_watch(Client& client, const StatsOptions& options);
// Prints the status word; anything but SERVING is kRpcError.
int run_health(Client& client, const HealthOptions& options);
// This program's version, and the server's where there is one.
int run_version(Client& client);
std::string program_version();
// What a request would cost, before it is made: of one policy, or a row for each of several; and the command to make
// it.
int run_estimate(Client& client, EstimateOptions options);
// One prompt under several policies: table, answers where they differ, a verdict.
int run_compare(Client& client, CompareOptions options);
// Writes the page of the kept positions of one reply or several.
int run_inspect(Client& client, InspectOptions options);
// Puts a server under load and measures it.
int run_bench(Client& client, const BenchOptions& options);
// Prints saved replies side by side; needs no server.
int run_report(const std::vector<std::string>& files, bool layers);

}  // namespace pkv::client
