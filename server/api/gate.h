// What is refused before anything of a request is looked at: while the model is loaded, while the server drains or its
// engine has failed, and where too many requests are waiting.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/api/access_log.h"
#include "server/api/server_state.h"
#include "server/api/worker_pool.h"

namespace pkv {

// A place for a request of `bytes` and of `owner` (owner_of()), or LOADING, DRAINING, ENGINE_FAILED or QUEUE_FULL.
// Takes microseconds.
absl::StatusOr<WaitingRoom::Place> enter(ServerState& state, uint64_t bytes, const std::string& owner);
// What every call about text begins with: its key, as Authenticator::admit(), a place, as enter(), and its row in
// the registry of calls. Key and row are left in `info`.
absl::StatusOr<WaitingRoom::Place> admit_call(ServerState& state, uint64_t bytes, CallInfo& info);
// Has a preparation thread do `task` for such a call of `bytes`, when it is its key's turn; or QUEUE_FULL. Large ones
// have a thread of their own.
absl::Status post_preparation(ServerState& state, uint64_t bytes, const CallInfo& info, WorkerPool::Task task);
// QUEUE_FULL, naming the settings.
absl::Status queue_full(const ServerState& state);
// QUEUE_FULL for a prompt of so many tokens, for which there are too many waiting (WaitingRoom::Place::take_tokens()).
absl::Status queue_full_of_tokens(const ServerState& state, uint64_t tokens);

}  // namespace pkv
