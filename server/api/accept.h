// From a message of the contract to a request that may be submitted, with the model it is for: what is done on a
// preparation thread.
#pragma once

#include <stop_token>

#include "absl/status/statusor.h"
#include "pyramidkv/v1/generation.pb.h"
#include "server/api/access_log.h"
#include "server/api/job_claim.h"
#include "server/api/server_state.h"
#include "server/api/validation.h"

namespace pkv {

struct AcceptedRequest {
  const ServedModel* served = nullptr;
  ValidRequest valid;
  JobClaim claim;
};

// `info` gets the request's id. Errors as of find_model(), read_claim(), validate_request() and validate_comparison().
absl::StatusOr<AcceptedRequest> accept_request(const pyramidkv::v1::GenerateRequest& message, ServerState& state,
                                               const std::stop_token& stop, CallInfo& info);
absl::StatusOr<AcceptedRequest> accept_comparison(const pyramidkv::v1::CompareRequest& message, ServerState& state,
                                                  const std::stop_token& stop, CallInfo& info);

}  // namespace pkv
