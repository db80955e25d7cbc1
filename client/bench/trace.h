// Requests that were written down: a JSON object a line, {"at": 1.5, "prompt_tokens": 700, "max_tokens": 64, "policy":
// "snapkv:128"}.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "client/bench/options.h"

namespace pkv::client {

// What a line does not say is drawn as without a trace.
struct TraceLine {
  double at = 0;  // seconds from the beginning, as written
  std::optional<std::string> prompt;
  std::optional<uint32_t> prompt_tokens, max_tokens;
  std::optional<size_t> policy;  // in the mix
};

// Reads `text` into lines in the order of their times; policies that are not in `mix` are added behind it. Empty lines
// are skipped. Returns an empty string, or what is wrong in which line.
std::string parse_trace(const std::string& text, std::vector<TraceLine>& lines, std::vector<BenchPolicy>& mix);

}  // namespace pkv::client
