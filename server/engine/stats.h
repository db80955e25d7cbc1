// The engine's state at one instant: what GetStats answers and /metrics exports. Made by the engine thread about 20
// times a second and whenever requests come, start or end; immutable from then on, and shared by all who read it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "kernels/backend.h"
#include "server/cache/kv_cache.h"
#include "server/engine/histograms.h"

namespace pkv {

struct EngineStats {
  // Of one policy. A comparison's caches count for the policy of each, in bytes and byte-seconds; everything else of it
  // for its baseline's.
  struct PolicyTotals {
    uint32_t running = 0;
    uint32_t waiting = 0;
    uint64_t requests_total = 0;       // ended, however
    uint64_t prompt_tokens_total = 0;  // of prompts read
    uint64_t generation_tokens_total = 0;
    uint64_t held_bytes = 0;  // now, as the next five
    uint64_t allocated_bytes = 0;
    uint64_t auxiliary_bytes = 0;
    uint64_t full_equivalent_bytes = 0;
    int64_t saved_bytes = 0;
    std::vector<uint64_t> layer_held_bytes;       // [layers]
    uint64_t prompts_compressed_total = 0;        // prompts read of which the cut took entries
    uint64_t prompts_unchanged_total = 0;         // and the others
    uint64_t evicted_entries_total = 0;           // at the cut after the prompt
    uint64_t evicted_while_generating_total = 0;  // one by one, in scope TOTAL
    double held_byte_seconds_total = 0;
    double full_equivalent_byte_seconds_total = 0;
    // Sums over the reports of completed requests.
    uint64_t reported_full_bytes_total = 0;
    uint64_t reported_allocated_bytes_total = 0;
    uint64_t reported_auxiliary_bytes_total = 0;
    std::map<std::string, uint64_t>
        finished_total;  // by finish reason or status code name: stop, length, CANCELLED, ...
  };

  struct RequestRow {
    std::string id;
    std::string phase;  // waiting, prefill, decode
    std::string policy;
    int32_t prompt_tokens = 0;
    int32_t generated_tokens = 0;
    uint64_t held_bytes = 0;
    uint64_t full_bytes = 0;
    absl::Duration age;
  };

  uint64_t sequence = 0;  // grows with every published snapshot
  absl::Time time;
  uint32_t running = 0;
  uint32_t waiting = 0;
  uint64_t waiting_tokens = 0;
  uint64_t steps_total = 0;
  // pool = live + free
  uint64_t pool_bytes = 0;
  uint64_t live_bytes = 0;
  uint64_t free_bytes = 0;
  uint64_t reserved_bytes = 0;
  CacheBytes cache;
  uint64_t workspace_bytes = 0;                  // in use now: residual streams, observed queries, step scratch
  std::optional<DeviceMemory> device;            // none: all of it is the machine's own memory
  std::map<std::string, PolicyTotals> policies;  // every policy of the table, from the start
  std::vector<RequestRow> requests;
  std::shared_ptr<const EngineHistograms> histograms;  // not of one instant: read as it is; nullptr: no engine
};

}  // namespace pkv
