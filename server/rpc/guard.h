// The keys of calls that are about no text.
#pragma once

#include <grpcpp/grpcpp.h>

#include <string_view>

#include "absl/status/status.h"
#include "server/api/server_state.h"

namespace pkv {

// Whether the call's key is good for `scope` (Authenticator::admit()). A refusal is logged, as one of `method`.
absl::Status guard(const ServerState& state, const grpc::CallbackServerContext& context, std::string_view method,
                   KeyScope scope);

}  // namespace pkv
