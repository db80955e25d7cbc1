// Keeps the engine's counters and makes a snapshot of its state after every step. Belongs to the engine thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/cache/kv_cache.h"
#include "server/engine/sequence.h"
#include "server/engine/stats.h"
#include "server/model/model.h"

namespace pkv {

class StatsRecorder {
 public:
  // Every policy of the table is there from the start.
  StatsRecorder(const ModelShape& shape, absl::Time now);

  void count_step() { ++steps_; }
  // `sequence` has ended: with a finish reason or a failure.
  void count_end(Sequence& sequence);
  // The state now. Sums held bytes over time: what the last snapshot held counts until now. `workspace_bytes` and
  // `rejected_total` are the caller's to fill in.
  EngineStats snapshot(std::span<const std::shared_ptr<Sequence>> sequences, const KvCache& cache,
                       uint64_t reserved_pages, absl::Time now);

 private:
  PolicyTotals& totals_of(const Sequence& sequence);
  void count_tokens(Sequence& sequence);
  void add_row(const Sequence& sequence, EngineStats& stats);
  uint64_t full_equivalent_bytes(const Sequence& sequence) const;

  const ModelShape& shape_;
  std::map<std::string, PolicyTotals> policies_;
  uint64_t steps_ = 0;
  uint64_t snapshots_ = 0;
  absl::Time last_snapshot_;
};

}  // namespace pkv
