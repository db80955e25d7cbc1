// Some rows of a prompt on one KV head, all its query heads, on their way over tiles of a lane's slots with an online
// softmax (FlashAttention-2, arXiv 2307.08691, algorithm 1). Tiles come packed in keys() and values(), one at a time.
#pragma once

#include <cstdint>

#include "kernels/cpu/attention/attention_kernels.h"
#include "kernels/operation_args.h"

namespace pkv {

struct PrefillRows {
  int32_t first_row = 0;  // of the step
  int32_t rows = 0;
  int32_t kv_head = 0;
  int32_t visible = 0;  // slots that the first row could see; each next row one more
  LanePages pages;

  int32_t last_visible() const { return visible + rows - 1; }
};

class PrefillRun {
 public:
  // Floats of scratch for a run of at most `query_rows` rows and heads.
  static int64_t scratch_floats(int32_t query_rows, int32_t head_dim, const PanelKernels& kernels);
  // Packs the rows' queries. All of it must stay as long as the run.
  PrefillRun(const AttendArgs& args, const PanelKernels& kernels, const PrefillRows& rows, float* scratch);

  float* keys() const { return keys_; }
  float* values() const { return values_; }
  int32_t panels() const { return padded_rows_ / kernels_.rows; }
  // The tile has `slots`, 1 to kTileSlots, of which row r (of this run) sees those before place + r, place >= 1.
  // `between` is called before every panel.
  template <typename Between>
  void add_tile(int32_t slots, int32_t place, const Between& between) {
    for (int32_t first = 0; first < query_rows_; first += kernels_.rows) {
      between();
      add_panel(first, slots, place);
    }
  }
  // Writes out and log-sum-exps.
  void finish() const;

 private:
  const float* query(int32_t m) const;
  void pack_queries();
  void add_panel(int32_t first, int32_t slots, int32_t place);

  const AttendArgs& args_;
  const PanelKernels& kernels_;
  const PrefillRows& rows_;
  int32_t d_, stride_, group_;
  int32_t query_rows_;  // tokens x heads
  int32_t padded_rows_;
  int64_t head_offset_;
  float *keys_, *values_, *scores_, *acc_, *max_, *sum_, *queries_;
};

}  // namespace pkv
