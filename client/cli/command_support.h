// What the commands of the program share: messages and exit codes, files, JSON.
#pragma once

#include <google/protobuf/message.h>

#include <string>
#include <vector>

#include "client/cli/commands.h"
#include "client/error_text.h"

namespace pkv::client {

// proto3 JSON without a line's end at the end.
std::string to_json(const google::protobuf::Message& message, bool pretty);

// Prints what went wrong with a call; returns its exit code.
int fail(const Client& client, const Error& error, const ErrorContext& context = {});
// Prints what is wrong with the command line; returns kUsage.
int usage_error(const std::string& message);

// "-" is standard input. False where the file cannot be read.
bool read_all(const std::string& path, std::string& text);
// Why read_all failed: "cannot read X: Is a directory".
std::string cannot_read(const std::string& path);
// False where the file cannot be written.
bool write_all(const std::string& path, const std::string& text);
// Why write_all would fail, asked before there is something to write; "" where nothing speaks against it.
std::string cannot_write(const std::string& path);

// A reply saved with `generate --save-reply` or printed with `--json`. Returns what is wrong, or "".
std::string read_reply(const std::string& path, v1::GenerateResponse& reply);
// "pyramidkv 128": policy and, where it cut something, budget.
std::string reply_title(const v1::GenerateResponse& reply);

// A policy named with --policy that is none of the contract's must be a preset: asks the server for its presets where
// there is one in `policies`. Returns kGood, or the exit code of what was printed.
int check_presets(Client& client, const std::vector<const v1::CachePolicy*>& policies);

// Columns of the terminal that standard output goes to; of COLUMNS, or 100, where it goes elsewhere.
size_t output_width();

}  // namespace pkv::client
