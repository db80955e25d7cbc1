// Deadlines before the engine: what cannot be done in time is refused before anything is done for it.
#pragma once

#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/engine/contract.h"
#include "server/engine/engine.h"

namespace pkv {

// DEADLINE_TOO_SHORT where the prompt alone would take much longer than is left, with both times and the rate that was
// measured. OK where none was, and where it is close: what others do at the time is not known.
absl::Status check_deadline(const Request& request, const Contract& contract, const Engine& engine);

// What a call ends with that `status` ends. gRPC also cancels one whose deadline has passed: it ended for the deadline.
absl::Status blame_deadline(absl::Status status, std::optional<absl::Time> deadline);

}  // namespace pkv
