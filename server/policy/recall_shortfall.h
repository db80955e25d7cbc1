// How a request ends whose min_recall cannot be reached under its ceiling.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/status.h"

namespace pkv {

// A lane that min_recall could not be reached in under its share of the ceiling.
struct RecallShortfall {
  double reached = 0;  // the recall of its best entries within that share
  int32_t layer = 0;
};
// FAILED_PRECONDITION that says so, and what such a status says; nothing for any other.
absl::Status recall_not_reached(const RecallShortfall& shortfall, int64_t min_recall_millionths);
std::optional<RecallShortfall> recall_shortfall(const absl::Status& status);

}  // namespace pkv
