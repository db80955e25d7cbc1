// Tokenize, Detokenize and EstimateCache: answered without the engine, yet not at once.
#pragma once

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>

#include "absl/status/statusor.h"
#include "server/api/access_log.h"
#include "server/api/server_state.h"
#include "server/rpc/reply_watch.h"

namespace pkv {

// Ends soon after `stop` was requested: the caller has given up.
using ReplyMaker = std::function<absl::StatusOr<grpc::ByteBuffer>(const std::stop_token& stop)>;

// Answers with what `make` gives, which is called once, if at all: on a preparation thread, or `at_once` on this one,
// for what takes less time than changing threads does. The request, of `bytes`, has a place among those that wait, as a
// generation has (enter()); one whose caller has given up is not begun with. The returned reactor deletes itself.
grpc::ServerUnaryReactor* start_prepared_call(ServerState& state, std::shared_ptr<ReplyWatch> watch, CallInfo info,
                                              grpc::CallbackServerContext& context, grpc::ByteBuffer& response,
                                              uint64_t bytes, ReplyMaker make, bool at_once = false);

}  // namespace pkv
