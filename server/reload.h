// What a reload of the configuration may change.
#pragma once

#include "absl/status/status.h"
#include "server/config/config.h"

namespace pkv {

// INVALID_ARGUMENT, naming place and key, where `next` has another value than `running` for a key that only a start
// puts in force.
absl::Status check_reload(const Config& running, const Config& next);

}  // namespace pkv
