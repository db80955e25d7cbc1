// The lane table that the configuration names.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/config/config.h"
#include "server/model/gguf.h"
#include "server/model/model.h"
#include "server/policy/lane_table.h"

namespace pkv {

// The table of model.lane_table; nullptr where none is named. Errors name the key, the file and the line.
absl::StatusOr<std::shared_ptr<const LaneTable>> configured_lane_table(const Config& config);

// INVALID_ARGUMENT naming the key where the table was made for another model than that of `file`.
absl::Status check_lane_table(const Config& config, const LaneTable& table, const GgufFile& file,
                              const ModelShape& shape);

}  // namespace pkv
