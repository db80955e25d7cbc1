// What gRPC knows of a call when it arrives.
#pragma once

#include <grpcpp/grpcpp.h>

#include <string_view>

#include "server/api/access_log.h"

namespace pkv {

CallInfo describe_call(const grpc::CallbackServerContext& context, std::string_view method);

}  // namespace pkv
