// Keeps the engine's counters, distributions and byte accounts, step by step, and makes snapshots of its state. Belongs
// to the engine thread; counting takes no lock and, but for a request's end, allocates nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/time/time.h"
#include "server/cache/kv_cache.h"
#include "server/engine/sequence.h"
#include "server/engine/stats.h"
#include "server/model/model.h"

namespace pkv {

class StatsRecorder {
 public:
  explicit StatsRecorder(const ModelShape& shape);

  // A step was made: so many rows of model work, so many sequences decoded.
  void count_step(int64_t rows, size_t decoded);
  // What came of the sequences in a step that ended at `now`. What they held when this was last called they held until
  // now.
  void count_progress(std::span<const std::shared_ptr<Sequence>> sequences, absl::Time now);
  // `sequence` has ended, at its ended_at, with a finish reason or a failure; its lanes are still open. After this its
  // byte accounts are complete.
  void count_end(Sequence& sequence);
  // What it came to, if it was answered.
  void count_result(const Sequence& sequence, const RequestResult& result);

  // The state now; the counters as of the calls above. Bytes reserved and workspace are the caller's to fill in.
  EngineStats snapshot(std::span<const std::shared_ptr<Sequence>> sequences, const KvCache& cache, absl::Time now);

 private:
  using PolicyTotals = EngineStats::PolicyTotals;

  void count_progress(Sequence& sequence, absl::Time now);
  void count_prompt(Sequence& sequence, absl::Time now);
  void count_bytes(Sequence& sequence, absl::Time now);
  void add_cache(const SequenceLanes& lanes, uint64_t full_bytes, const KvCache& cache, PolicyTotals& totals) const;
  void add_sequence(const Sequence& sequence, const KvCache& cache, std::vector<PolicyTotals>& policies,
                    EngineStats& stats) const;
  uint64_t full_bytes(const Sequence& sequence, int32_t logical_tokens) const;

  const ModelShape& shape_;
  std::vector<PolicyTotals> policies_;  // in the order of policy_table(); what is true now only is left 0
  std::shared_ptr<EngineHistograms> histograms_ = std::make_shared<EngineHistograms>();
  uint64_t steps_ = 0;
  uint64_t snapshots_ = 0;
};

}  // namespace pkv
