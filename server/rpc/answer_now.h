// Methods that are answered at once, on gRPC's own thread. Their messages are raw, so that a request's unknown fields
// are refused as everywhere.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "server/rpc/reply_watch.h"
#include "server/rpc/wire.h"

namespace pkv {

// `guarded`: of guard(). `make`: the reply to a Request.
template <typename Request, typename Make>
grpc::ServerUnaryReactor* answer_now(std::shared_ptr<ReplyWatch> watch, grpc::CallbackServerContext& context,
                                     absl::Status guarded, const grpc::ByteBuffer& request, grpc::ByteBuffer& response,
                                     const Make& make) {
  Request message;
  absl::Status status = std::move(guarded);
  if (status.ok()) status = parse_message(request, message);
  if (status.ok()) response = serialize_message(make(message));
  return reply_now(std::move(watch), context, status);
}

}  // namespace pkv
