// What gRPC knows of a call when it arrives.
#pragma once

#include <grpcpp/grpcpp.h>

#include <optional>
#include <string_view>

#include "absl/time/time.h"
#include "server/api/access_log.h"

namespace pkv {

CallInfo describe_call(const grpc::CallbackServerContext& context, std::string_view method);

// None: the caller waits as long as it takes.
std::optional<absl::Time> deadline_of(const grpc::CallbackServerContext& context);

}  // namespace pkv
