// EstimateCache: what a request of given lengths would need, from the code path of admission.
#pragma once

#include "absl/status/status.h"
#include "pyramidkv/v1/generation.pb.h"
#include "server/api/server_state.h"

namespace pkv {

// Errors as of a request with these lengths and this policy, but that one which can never fit is no error.
absl::Status estimate_cache(const pyramidkv::v1::EstimateCacheRequest& message, const ServedModel& served,
                            const PolicyCatalog& policies, pyramidkv::v1::EstimateCacheResponse& response);

}  // namespace pkv
