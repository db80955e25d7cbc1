// Refuses what cannot be done in time, before anything is done for it.
#pragma once

#include "absl/status/status.h"
#include "server/engine/contract.h"
#include "server/engine/engine.h"

namespace pkv {

// DEADLINE_TOO_SHORT where the prompt alone would take much longer than is left, with both times and the rate that was
// measured. OK where none was, and where it is close: what others do at the time is not known.
absl::Status check_deadline(const Request& request, const Contract& contract, const Engine& engine);

}  // namespace pkv
