// What a prompt left of one layer, for reports.
#pragma once

#include <cstdint>
#include <vector>

namespace pkv {

struct LayerOutcome {
  int32_t budget_tokens = 0;  // largest lane budget of the layer; where lanes share, what the largest got
  std::vector<int32_t> kept;  // [kv_heads] entries straight after prefill
  // Known when the whole prompt is done.
  std::vector<double> recall;  // [kv_heads]; empty: nothing was observed
  // [kv_heads], in the order of slots until sort_positions(); only if asked for.
  std::vector<std::vector<int32_t>> kept_positions;
  // The same when the answer is done.
  std::vector<std::vector<int32_t>> final_positions;
};

}  // namespace pkv
