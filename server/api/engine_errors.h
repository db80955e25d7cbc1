// What the engine says of requests that were handed to it, as the contract has it.
#pragma once

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/engine/engine.h"

namespace pkv {

// When to come back to a server that is full or going away.
inline constexpr absl::Duration kQueueRetryDelay = absl::Seconds(1);

// What Engine::submit refused: QUEUE_FULL or DRAINING with a delay, or ENGINE_FAILED. `state` is the engine's.
absl::Status submit_error(const absl::Status& status, Engine::State state);
// What ended a submitted request (TokenSink::on_error): RECALL_NOT_REACHED with its figures, NOT_A_NUMBER,
// OUT_OF_MEMORY, DRAINING with a delay, ENGINE_FAILED, or `status` itself.
absl::Status running_error(const absl::Status& status, Engine::State state);

}  // namespace pkv
