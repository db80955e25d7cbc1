// The commands of the `pyramidkv` program. Each returns the exit code: 0 good, 1 the server refused or failed the call,
// 2 wrong usage, 3 server not reachable or the connection lost. Answers go to stdout, everything else to stderr.
#pragma once

#include <optional>
#include <string>
#include <vector>

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
  std::string model;
  PolicyOptions cache;
  uint32_t prompt_tokens = 0;
  std::optional<uint32_t> max_tokens;  // unset: the server's default, as far as the model's length leaves it
  bool layers = false;                 // also the budget of every layer
  bool json = false;
};

struct CompareOptions {
  GenerateOptions generate;  // prompt, sampling; its policy options hold for every policy of the list that takes them
  std::string policies;      // NAME[:BUDGET[:SCOPE]],...; the first is the baseline
};

struct InspectOptions {
  GenerateOptions generate;
  std::string from_reply;  // saved reply with positions; asks no server
  std::string output;      // the HTML file
  bool tokens = false;     // also ask for the prompt's token texts, which makes the server score the whole prompt
};

int run_generate(Client& client, GenerateOptions options);
int run_chat(Client& client, GenerateOptions options);
int run_tokenize(Client& client, const TokenizeOptions& options);
int run_models(Client& client, bool json);
int run_policies(Client& client, bool json);
int run_stats(Client& client, bool include_requests, bool json);
// What a request would cost, before it is made.
int run_estimate(Client& client, const EstimateOptions& options);
// One prompt under several policies: table and answers.
int run_compare(Client& client, CompareOptions options);
// Writes the page of one reply's kept positions.
int run_inspect(Client& client, InspectOptions options);
// Prints saved replies side by side; needs no server.
int run_report(const std::vector<std::string>& files, bool layers);

}  // namespace pkv::client
