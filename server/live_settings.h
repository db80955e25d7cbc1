// What of a configuration is not just numbers: read, checked and made ready, so that it can be refused before anything
// of it is in force.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "server/api/api_keys.h"
#include "server/api/policy_catalog.h"
#include "server/config/config.h"

namespace pkv {

struct LiveSettings {
  PolicyCatalog policies;
  std::vector<ApiKey> keys;  // none: everybody may call
};

// INVALID_ARGUMENT with place and key, of the configuration or of the file with the API keys.
// `lane_table`: that of the served model, which stays until the server ends.
absl::StatusOr<LiveSettings> make_live_settings(const Config& config, std::shared_ptr<const LaneTable> lane_table);

}  // namespace pkv
