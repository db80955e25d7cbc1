// How work on a text ends whose caller has given up.
#pragma once

#include "absl/status/status.h"

namespace pkv {

inline absl::Status cancelled_by_caller() { return absl::CancelledError("cancelled by the caller"); }

}  // namespace pkv
