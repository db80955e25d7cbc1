// The CPU backend's side of the key/value cache: writing and moving entries, attention over pages, and the passes over
// queries and keys that eviction policies score with. The operations are those of Backend (kernels/backend.h) with the
// same arguments.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "kernels/cpu/attention/attention_kernels.h"
#include "kernels/cpu/attention/prefill_run.h"
#include "kernels/cpu/attention/seen_slots.h"
#include "kernels/cpu/elementwise/rope_table.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/thread_pool.h"

namespace pkv {

struct GatherJob;  // lanes/gather.h

// What the kernels can compute.
constexpr int32_t kHeadDimMultiple = 8;
constexpr int32_t kMaxQueryGroup = 64;  // query heads of a KV head

// Holds the scratch memory of its operations between calls, so only one may run at a time.
class CpuAttention {
 public:
  // `exact`: every product in float32. `pool` must outlive this.
  CpuAttention(const IsaFeatures& features, bool exact, ThreadPool& pool);

  void write_kv(const TensorView& k, const TensorView& v, const int32_t* positions, const KvView& kv,
                const RowSpans& spans, int32_t kv_heads);
  static absl::Status supports(const AttentionShape& shape);  // as Backend's
  void attend(const AttendArgs& args);
  void row_lse(const ObserveArgs& args, const TensorView& lse);
  void column_mass(const ObserveArgs& args, const TensorView& lse, const TensorView& sums, const TensorView& squares);
  void diagonal_mass(const ObserveArgs& args, const TensorView& lse, const TensorView& sums);
  // The first two, in one pass where the scores between fit the caches that cores share.
  void observe(const ObserveArgs& args, const TensorView& lse, const TensorView& sums, const TensorView& squares);
  // The same with every product in float32.
  void observe_exactly(const ObserveArgs& args, const TensorView& lse, const TensorView& sums);
  void value_norms(const KvView& kv, int32_t first_lane, int32_t kv_heads, const TensorView& factors,
                   const TensorView& norms);
  void gather(const KvView& kv, int32_t from, const TensorView& kept, const TensorView& counts, int32_t to);
  void key_norms(const KvView& kv, int32_t first_lane, const TensorView& norms);
  void key_similarity(const KvView& kv, int32_t first_lane, const TensorView& unit_sums, const TensorView& cosines);
  void turn_keys(const KvView& kv, int32_t first_lane, int32_t lanes, int32_t first_slot, int32_t delta,
                 const RopeSpec& spec);

 private:
  // One query row of one KV head in a decode step.
  struct DecodeUnit {
    int32_t row = 0;
    int32_t kv_head = 0;
    int32_t visible = 0;
    int32_t tiles = 0;
    int64_t first_tile = 0;  // in the step's list of tiles
    LanePages pages;
  };
  // Some rows of one span on one KV head in a prompt step.
  struct PrefillItem {
    PrefillRows rows;
    int32_t slots = 0;  // that the first row sees, about
    int32_t seen = -1;  // which of seen_; -1: all slots
    // Multiply-adds of each query head and dimension, scores and values together.
    int64_t products() const { return static_cast<int64_t>(rows.rows) * (2 * slots + rows.rows); }
  };
  struct ObserveChunk;
  struct ObservePanel;
  struct TilePartials;
  struct MassRows;
  struct KeyTile;

  void decode(const AttendArgs& args);
  void run_decode_tiles(const AttendArgs& args, int64_t begin, int64_t end, int32_t thread);
  void finish_decode_unit(const AttendArgs& args, const DecodeUnit& unit, const float* partials);
  void prefill(const AttendArgs& args);
  void list_prefill_items(const AttendArgs& args);
  void list_sparse_items(const AttendArgs& args);
  void add_items(const AttendArgs& args, const RowSpan& span, int32_t first, int32_t rows);
  void run_all_slots(const PrefillRows& rows, PrefillRun& run) const;
  void run_seen_slots(const PrefillRows& rows, const SeenSlots& seen, PrefillRun& run, float* scratch) const;
  int64_t prefill_scratch_floats(const AttendArgs& args) const;
  void row_lse_by(const PanelKernels& panels, const ObserveArgs& args, const TensorView& lse);
  void column_mass_by(const PanelKernels& panels, const ObserveArgs& args, const TensorView& lse,
                      const TensorView& sums, const TensorView& squares);
  void observe_by(const PanelKernels& panels, const ObserveArgs& args, const TensorView& lse, const TensorView& sums,
                  const TensorView& squares);
  // Calls body(chunk) for at most `most` observation rows at a time, ascending, their queries packed.
  template <typename Body>
  void for_each_chunk(const ObserveArgs& args, const PanelKernels& panels, int32_t most, Body body);
  // The rows' log-sum-exps.
  void merge_tiles(const ObserveArgs& args, const TilePartials& partials, const TensorView& lse);
  // Calls visit(which panel, panel) for a chunk's panels against every tile of every lane.
  template <typename Visit>
  void for_each_panel(const ObserveArgs& args, const ObserveChunk& chunk, Visit visit);
  template <typename Body>
  int32_t for_each_key_tile(const KvView& kv, int32_t first_lane, int32_t lanes, int32_t slots, Body body);
  float* float_keys(const KvView& kv, const KeyTile& tile, int32_t page) const;
  // The two ways of gather(): to a lane of the same format, or of another.
  void move_entries(std::span<GatherJob> jobs);
  void convert_entries(std::span<GatherJob> jobs);

  const AttentionKernels& kernels_;
  const PanelKernels& panels_;  // for prompts; float32 when exact
  ThreadPool& pool_;

  Scratch shared_;
  Scratch partials_;
  Scratch weights_;
  std::vector<Scratch> per_thread_;
  RopeTable turn_table_;
  std::vector<DecodeUnit> units_;
  std::vector<PrefillItem> items_;
  std::vector<SeenSlots> seen_;
  std::unique_ptr<std::atomic<int32_t>[]> tiles_left_;  // per decode unit
  size_t tiles_left_capacity_ = 0;
};

// Lane `lane` of `kv` as the kernels see it.
LanePages lane_pages(const KvView& kv, int32_t lane);

// The query [head_dim] by which a lane's keys are to be multiplied: itself, or, mixed as they are, in `room`.
const float* query_for(const LanePages& pages, const float* query, float* room);

}  // namespace pkv
