// Who goes first, as the request and the key it came with have it.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "pyramidkv/v1/generation.pb.h"
#include "server/api/authenticator.h"
#include "server/engine/scheduler.h"

namespace pkv {

// Who shares the server with whom: keys, by their names; where there are none, everybody is one owner, "".
std::string owner_of(const KeyUse* key);

// `key`: nullptr where the server has none. BAD_INPUT about `priority` where it is out of
// range, PERMISSION_DENIED where it is better than the key's requests may have.
absl::StatusOr<JobClaim> read_claim(const pyramidkv::v1::GenerateRequest& message, const KeyUse* key);

}  // namespace pkv
