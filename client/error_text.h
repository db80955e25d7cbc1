// What people read of a failed call: the server's words, the flag beside the field, and a way out that works.
#pragma once

#include <string>

#include "client/client.h"

namespace pkv::client {

// Where the reader is, and so what a way out looks like: `--budget 1211KiB` or `/budget 1211KiB`.
enum class Surface : uint8_t { kCommandLine, kChat };

// sampling.max_tokens where a request does not say, as the contract has it.
inline constexpr uint32_t kDefaultMaxTokens = 256;

struct ErrorContext {
  Surface surface = Surface::kCommandLine;
  uint32_t max_tokens = kDefaultMaxTokens;  // of the request that failed
};

// The flag that sets a field of a request ("sampling.top_p" -> "--top-p"); "" where none does.
std::string flag_of_field(const std::string& field);

// One line, and where there is a way out a second one with it.
std::string error_text(const Error& error, const ErrorContext& context);

// The second line alone: "Try --budget 1211KiB", or "".
std::string way_out(const Error& error, const ErrorContext& context);

}  // namespace pkv::client
