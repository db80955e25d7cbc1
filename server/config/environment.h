// Environment variables as a source of configuration: PYRAMIDKV_CACHE__POOL_BYTES sets cache.pool_bytes.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/config/config_keys.h"

namespace pkv {

struct Variable {
  std::string name;
  std::string value;
  const ConfigKey* key;
};

// PYRAMIDKV_SECTION__KEY, in capitals, the dot as two underscores.
std::string variable_name(const ConfigKey& key);

// The server's variables among "NAME=value" entries. Ours are PYRAMIDKV_A__B; other names with that prefix belong to
// the client (PYRAMIDKV_SERVER) or are what Kubernetes says about a Service called pyramidkv
// (PYRAMIDKV_PORT_50051_TCP_ADDR) and are passed over. INVALID_ARGUMENT for one of ours that is no key, and for a key
// written with single underscores.
absl::StatusOr<std::vector<Variable>> config_variables(const std::vector<std::string>& environment);

}  // namespace pkv
