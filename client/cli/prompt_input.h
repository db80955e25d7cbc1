// From the options of a command that generates to its request: the prompt's parts, its form, the sampling.
#pragma once

#include <optional>
#include <string>

#include "client/cli/commands.h"

namespace pkv::client {

// The model a request would go to: the one it names, else the only one. Nothing where the server lists no such model
// or, being older, no models at all; `code` is the exit code where the question itself failed.
std::optional<v1::Model> find_model(Client& client, const std::string& id, int& code);

// Puts document, question and system message together in `options.request`, as a chat message where the model has a
// chat template. Returns kGood, or the exit code of what was printed.
int assemble_prompt(Client& client, GenerateOptions& options);

// Reads the seed, and makes sampling greedy unless the options ask for another. Returns what is wrong, or "".
std::string read_sampling(GenerateOptions& options);

// assemble_prompt and everything else that makes a request of the options; checks what can be checked first.
int prepare_request(Client& client, GenerateOptions& options, v1::GenerateRequest& request);

}  // namespace pkv::client
