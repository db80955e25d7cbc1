// The rules of Compare. Errors name fields below "request" and "policies[i]" (errors.h).
#pragma once

#include <optional>
#include <stop_token>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "pyramidkv/v1/generation.pb.h"
#include "server/api/server_state.h"
#include "server/api/validation.h"

namespace pkv {

inline constexpr int kMaxComparisons = 8;

// The baseline of a comparison with the policies to compare it with. `deadline` and `stop` as for validate_request().
absl::StatusOr<ValidRequest> validate_comparison(const pyramidkv::v1::CompareRequest& message,
                                                 const ServedModel& served, ServerState& state,
                                                 std::optional<absl::Time> deadline, const std::stop_token& stop);

}  // namespace pkv
