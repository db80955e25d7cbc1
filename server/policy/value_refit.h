// Refits the values of what a layer's lanes keep (LaneRefit): every third of the observed rows attends to the whole
// lanes, the kept values are read before they are moved and rounded, and go to the targets' lanes in their place.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/tensor_set.h"
#include "server/cache/kv_cache.h"
#include "server/policy/lane_refit.h"
#include "server/policy/policy.h"

namespace pkv {

class ValueRefit {
 public:
  struct Shape {
    CacheGeometry geometry;
    int32_t q_heads = 0;
    int32_t tokens = 0;        // n: of the prompt
    int32_t largest_lane = 0;  // entries that a lane keeps at most
    int64_t most_step_work = 0;
  };
  // `rows`: what the policy observes. RESOURCE_EXHAUSTED where the backend has no memory for it.
  static absl::StatusOr<std::unique_ptr<ValueRefit>> create(Backend& backend, const Shape& shape,
                                                            std::span<const ObservationRow> rows);
  // Everything that it holds at most, on the backend and on the host.
  static uint64_t bytes(const Shape& shape, std::span<const ObservationRow> rows);
  // Multiply-adds of a layer, about.
  static int64_t work(const Shape& shape, std::span<const ObservationRow> rows);

  // The layer whose lanes keep counts[kv_head] of the entries of sequence `from`: slots kept[kv_head, i] on the
  // backend.
  struct Layer {
    KvCache& cache;
    SequenceId from;
    int32_t layer = 0;
    TensorView observed;  // [observed rows, Hq * d]
    TensorView kept;      // [Hkv, >= counts] i32
  };
  void begin(std::span<const int32_t> counts);
  // Before the entries are moved. Attention of the rows to the lanes of `from`, step by step, and the reading of values
  // with the last one.
  bool has_read() const { return next_row_ == static_cast<int64_t>(rows_.size()); }
  void read_step(const Layer& layer);
  // After that. Lane by lane: what is computed, and the values' way to all targets' lanes.
  bool done() const { return next_head_ == shape_.geometry.kv_heads; }
  void fit_step(const Layer& layer, std::span<const SequenceId> targets);
  int64_t step_work() const;

 private:
  // One of the observed rows.
  struct Row {
    int64_t index = 0;   // among them
    int32_t unseen = 0;  // newest entries that it does not see
  };
  ValueRefit(Backend& backend, const Shape& shape, std::span<const ObservationRow> rows);
  static std::vector<Row> chosen(const Shape& shape, std::span<const ObservationRow> rows);
  static TensorSet<ValueRefit> tensors(const Shape& shape, std::span<const ObservationRow> rows);
  void read_values(const Layer& layer);
  // The next lane that does not keep everything.
  void skip_whole_lanes();
  void begin_lane(const Layer& layer, SequenceId target);
  void write_lane(const Layer& layer, SequenceId target);
  // The rows of one KV head's query heads: [rows * G, d] of [rows, Hq * d].
  std::vector<float> rows_of_group(std::span<const float> rows) const;

  Backend& backend_;
  Shape shape_;
  std::vector<Row> rows_;
  std::vector<int32_t> counts_;
  int64_t next_row_ = 0;
  int32_t next_head_ = 0;
  Tensor outputs_;                               // [rows, Hq * d]
  Tensor keys_, values_;                         // [largest lane, d]
  std::vector<float> queries_, attended_;        // [rows, Hq * d]: of the layer, on the host
  std::vector<std::vector<int32_t>> slots_;      // kept ones of every lane
  std::vector<std::vector<float>> kept_values_;  // [kv_heads][counts, d] as the prompt was read
  // Of the lane under way:
  std::vector<int32_t> lane_unseen_;
  std::vector<float> lane_queries_, lane_outputs_, lane_keys_;
  std::optional<LaneRefit> lane_;
};

}  // namespace pkv
