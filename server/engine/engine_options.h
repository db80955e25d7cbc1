// How an engine is set up.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/policy/registry.h"

namespace pkv {

struct EngineStats;

struct EngineOptions {
  uint64_t pool_bytes = uint64_t{512} << 20;
  int32_t page_bytes = 0;  // 0: the backend's choice
  int32_t max_running = 64;
  int32_t max_waiting = 256;  // the server, whose limit may change, bounds them before they come
  // Rows of a prompt that are computed together at most; at most step_tokens. 0: the backend's choice.
  int32_t prefill_chunk_rows = 0;
  int32_t step_tokens = 256;  // rows of one run of the model at most: a prefill unit, or decode rows
  // Of a prompt, through the whole model, in the time of a decode step of one row: what prompts may do between steps.
  // 0: the backend's choice.
  int32_t step_rows = 0;
  int32_t concurrent_prefills = 2;
  uint64_t workspace_bytes = uint64_t{1} << 30;   // of prefills under way and of state: see JobCost
  absl::Duration abort_time = absl::Seconds(10);  // what cancelling the rest may take after a drain's deadline
  std::function<absl::Time()> clock = absl::Now;  // thread-safe
  PolicyMaker make_policy = pkv::make_policy;     // thread-safe
  // Called after every step with the state it left, on the engine thread, before its endings are told; must not block.
  // With it every step makes a snapshot, without it only those that change something and about 20 a second.
  std::function<void(const EngineStats&)> at_step;
};

}  // namespace pkv
