#include "server/live_settings.h"

#include <string>
#include <utility>

#include "kernels/status_macros.h"

namespace pkv {

absl::StatusOr<LiveSettings> make_live_settings(const Config& config, std::shared_ptr<const LaneTable> lane_table) {
  PKV_ASSIGN_OR_RETURN(PolicyCatalog policies,
                       PolicyCatalog::create(config.policies, config.cache.dtype, std::move(lane_table)));
  LiveSettings settings{.policies = std::move(policies)};
  if (config.server.api_keys.empty()) return settings;
  absl::StatusOr<std::vector<ApiKey>> keys = load_api_keys(config.server.api_keys);
  if (!keys.ok()) {
    return absl::InvalidArgumentError(config.about("server.api_keys", std::string(keys.status().message())));
  }
  settings.keys = *std::move(keys);
  return settings;
}

}  // namespace pkv
