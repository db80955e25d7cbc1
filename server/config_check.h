// What --check-config asks of a configuration whose every value is good by itself: whether this machine could run it.
#pragma once

#include "absl/status/status.h"
#include "server/config/config.h"

namespace pkv {

// The device, the model's file (where model.path is set) and whether cache pages fit its shape; weights are not read.
// INVALID_ARGUMENT with the place, the key and the way out.
absl::Status check_on_this_machine(const Config& config);

}  // namespace pkv
