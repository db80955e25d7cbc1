// The work of reading prompts, in multiply-adds, and how much of it there is between two decode steps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "server/engine/engine_options.h"
#include "server/model/model.h"

namespace pkv {

// Of one row: through a layer without attention, through the output head, through the whole model.
int64_t layer_row_work(const ModelShape& shape);
int64_t head_row_work(const ModelShape& shape);
int64_t model_row_work(const ModelShape& shape);

// Of one prompt.
struct PromptWork {
  int64_t row = 0;         // a row through a layer, without attention
  int32_t least_rows = 1;  // fewer take a layer as long as these
  int64_t pair = 0;        // a row and an entry that it attends to
  int64_t observed = 0;    // a row and an entry before it: what policies observe of every row
  int64_t cut = 0;         // a layer's cuts, all policies together, about, and the choice of its pattern
  int32_t most_seen = std::numeric_limits<int32_t>::max();  // entries that a row attends to, about
  int64_t head_row = 0;  // a row through the output head, where the prompt's own log-probabilities are asked for

  // Rows [first, first + rows) through one layer.
  int64_t rows(int32_t first, int32_t rows) const;
  // The most rows from `first` on that are `work` at most; at least one, at most `most`.
  int32_t rows_within(int64_t work, int32_t first, int32_t most) const;
  int64_t whole(int32_t tokens, int32_t layers) const;
};

// What prompts may do in one step of the engine: as much as its decode rows do, so that those who wait for their next
// token wait about twice as long as alone. With few rows as much as takes the backend as long as them.
class StepWork {
 public:
  StepWork(const ModelShape& shape, const EngineOptions& options);

  // Of no step less, and of no unit more that can be divided.
  int64_t least() const { return least_; }
  // `attended`: tokens whose entries the rows attend to, all rows together.
  int64_t beside(size_t decoded_rows, int64_t attended) const;

 private:
  int64_t model_row_ = 0;
  int64_t attended_token_ = 0;
  int64_t least_ = 0;
  int64_t alone_ = 0;  // where nobody waits for a token: a full chunk, and as much again of attention
};

}  // namespace pkv
