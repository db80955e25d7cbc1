#include "server/api/accept.h"

#include <utility>

#include "kernels/status_macros.h"
#include "server/api/comparison_rules.h"
#include "server/api/errors.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

// Ids that are no good are refused, and not repeated in the log.
void note_id(const std::string& id, CallInfo& info) {
  if (!is_request_id(id)) return;
  info.request_id = id;
  if (info.listed != nullptr) info.listed->set_request_id(id);
}

}  // namespace

absl::StatusOr<AcceptedRequest> accept_request(const pb::GenerateRequest& message, ServerState& state,
                                               const std::stop_token& stop, CallInfo& info) {
  note_id(message.request_id(), info);
  PKV_ASSIGN_OR_RETURN(const ServedModel* served, state.find_model(message.model()));
  PKV_ASSIGN_OR_RETURN(JobClaim claim, read_claim(message, info.key.get()));
  PKV_ASSIGN_OR_RETURN(ValidRequest valid, validate_request(message, *served, state, info.deadline, stop));
  note_id(valid.request().id, info);  // made up where the caller names none
  return AcceptedRequest{.served = served, .valid = std::move(valid), .claim = std::move(claim)};
}

absl::StatusOr<AcceptedRequest> accept_comparison(const pb::CompareRequest& message, ServerState& state,
                                                  const std::stop_token& stop, CallInfo& info) {
  note_id(message.request().request_id(), info);
  absl::StatusOr<const ServedModel*> served = state.find_model(message.request().model());
  if (!served.ok()) return with_field_moved(served.status(), "model", "request.model");
  absl::StatusOr<JobClaim> claim = read_claim(message.request(), info.key.get());
  if (!claim.ok()) return with_field_moved(claim.status(), "", "request.");
  PKV_ASSIGN_OR_RETURN(ValidRequest valid, validate_comparison(message, **served, state, info.deadline, stop));
  note_id(valid.request().id, info);
  return AcceptedRequest{.served = *served, .valid = std::move(valid), .claim = *std::move(claim)};
}

}  // namespace pkv
