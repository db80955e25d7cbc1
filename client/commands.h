// The commands of the `pyramidkv` program. Each returns the exit code: 0 good, 1 an RPC error, 2 wrong usage, 3 server not
// reachable. Answers go to stdout, everything else to stderr.
#pragma once

#include <string>
#include <vector>

#include "client/client.h"
#include "client/request_builder.h"

namespace pkv::client {

enum ExitCode : int { kGood = 0, kRpcError = 1, kUsage = 2, kUnreachable = 3 };

struct GenerateOptions {
  RequestOptions request;
  std::string prompt_file;    // "-": standard input
  std::string question;       // appended to the document; makes the prompt a chat message
  std::string system;         // system message; makes the prompt a chat message
  bool chat = false;          // send the prompt as a chat message
  bool stream = false;
  bool json = false;
  std::string save_reply;     // file that gets the reply as JSON, for `report`
};

struct TokenizeOptions {
  std::string model, text, file;
  std::vector<uint32_t> ids;  // detokenize these instead
  bool json = false;
};

int run_generate(Client& client, GenerateOptions options);
int run_chat(Client& client, GenerateOptions options);
int run_tokenize(Client& client, const TokenizeOptions& options);
int run_models(Client& client, bool json);
int run_policies(Client& client, bool json);
int run_stats(Client& client, bool include_requests, bool json);
// Prints saved replies side by side; needs no server.
int run_report(const std::vector<std::string>& files, bool layers);

}  // namespace pkv::client
