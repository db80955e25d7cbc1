// What `pyramidkv bench` finds out and prepares before the load begins; each prints what is wrong and returns the
// program's exit code.
#pragma once

#include <string>
#include <vector>

#include "client/bench/options.h"
#include "client/bench/requests.h"
#include "client/bench/runner.h"
#include "client/client.h"

namespace pkv::client {

struct BenchServer {
  v1::Model model;
  std::string version;
};

// The one model that is served.
int find_model(Client& client, const BenchPlan& plan, BenchServer& server);

// Asks the server what a typical request of every policy would need: a policy that is refused ends the run before it
// begins, one that can never fit is warned of.
int check_policies(Client& client, const BenchPlan& plan, const std::vector<BenchPolicy>& mix,
                   const BenchServer& server);

// Tokenizes the text that prompts are cut from.
int load_prompts(Client& client, const BenchPlan& plan, const BenchServer& server, PromptPool& pool);

// Connects `plan.channels` separate connections to the client's server.
int open_channels(const Client& client, const BenchPlan& plan, BenchRunner::Stubs& stubs);

}  // namespace pkv::client
