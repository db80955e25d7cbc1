// The groups of options that commands share, and what every help page ends with.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "client/cli/commands.h"

namespace pkv::client {

// Prompt, question, system message and the form they go in.
void add_prompt_options(CLI::App& app, GenerateOptions& options);
// Model, deadline, output: of every command that generates.
void add_common_options(CLI::App& app, GenerateOptions& options);
// What a budget covers and spares; holds for every policy.
void add_budget_options(CLI::App& app, PolicyOptions& cache);
// The policy and its parameters, budget options included.
void add_policy_options(CLI::App& app, PolicyOptions& cache);
void add_sampling_options(CLI::App& app, GenerateOptions& options);
// What ends an answer by tokens, which add_sampling_options has too.
void add_length_options(CLI::App& app, RequestOptions& request);
void add_report_option(CLI::App& app, GenerateOptions& options);
void add_token_options(CLI::App& app, RequestOptions& request);

// Ids of tokens, with spaces or commas between them.
void add_token_ids(CLI::App& app, std::vector<uint32_t>& ids);

// Options whose value is one word each time they are given, so that a prompt behind them stays a prompt.
CLI::Option* add_repeated(CLI::App& app, const char* name, std::vector<std::string>& words, const char* help);

// The end of a help page: examples, one a line, then exit codes and the server's address.
std::string help_footer(const std::vector<std::string>& examples);

}  // namespace pkv::client
