// What an operator should know about a configuration that is allowed but rarely meant.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/config/config.h"

namespace pkv {

// Memory this process may use: the machine's, or the least limit of the control groups it is in. `root` is "/" but in
// tests. None: it cannot be told.
std::optional<uint64_t> memory_limit(const std::string& root = "/");

// Sentences that begin with the key they are about.
std::vector<std::string> startup_warnings(const Config& config, std::optional<uint64_t> memory);

}  // namespace pkv
