// What is asked of rows of logits, and what comes of them: tokens to choose from, log-probabilities, comparisons. All
// of it lies in backend memory. Rankings are by value, descending, and then by id, ascending; NaN counts as -infinity.
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

#include "kernels/tensor.h"

namespace pkv {

constexpr int32_t kMostRanked = 256;  // tokens of a row that an operation ranks at most
// How far SampleArgs::mass may be from the exact sum, relatively. Float32 exponents of x = (logit - best) * mass_scale
// are off by 3 * 2^-24 * |x|, and the mean of |x|, weighted by mass, is at most ln V.
constexpr double kMassError = 0x1p-16;

// What happens to one token's logit before anything is chosen. Of repeated tokens: CTRL, arXiv 1909.05858, section 4.1,
// with the sign taken into account as all servers do.
struct LogitEdit {
  int32_t token = 0;     // in the vocabulary
  int32_t ends = 0;      // 1: impossible where SampleRow::no_end
  float bias = 0;        // is added first,
  float repetition = 1;  // then divides a positive logit and multiplies another,
  float penalty = 0;     // then is subtracted
  float before = 0;      // the logit as it was: memory of whoever edits
};

PKV_HOST_DEVICE inline float edited_logit(float logit, const LogitEdit& edit, bool no_end) {
  if (no_end && edit.ends != 0) return -std::numeric_limits<float>::infinity();
  const float biased = logit + edit.bias;
  return (biased > 0 ? biased / edit.repetition : biased * edit.repetition) - edit.penalty;
}

// A token to be sampled. The edits are of distinct tokens.
struct SampleRow {
  LogitEdit* edits = nullptr;  // [edit_count]
  int32_t edit_count = 0;
  int32_t changed = -1;  // edits[changed] becomes `change` first and for good; -1: none
  LogitEdit change;
  int32_t no_end = 0;
  int32_t ranked = 0;    // tokens to rank: [0, min(V, kMostRanked)]; 0: nothing is wanted of this row
  float mass_scale = 0;  // 1 / temperature; 0: no mass is wanted
};

struct RankedToken {
  int32_t token = 0;
  float logit = 0;
  float before = 0;  // without edits
};

// Rows of logits [R, V], which are the same afterwards. Of row r, n = rows[r].ranked and with its edits:
struct SampleArgs {
  TensorView logits;
  const SampleRow* rows = nullptr;  // [R]
  TensorView ranked;                // i32 [R, >= 3 n]: n RankedToken, the best in order
  TensorView mass;                  // f32 [R, 1] sum over all tokens of exp((logit - best) * mass_scale)
};

// Log-probabilities wanted of a row.
struct LogprobRow {
  int32_t ranked = -1;  // of the best tokens: [0, min(V, kMostRanked)]; -1: nothing is wanted of this row
  int32_t target = -1;  // and of this one; -1: none
};

// Of row r, n = rows[r].ranked:
struct LogprobArgs {
  TensorView logits;                 // [R, V]
  const LogprobRow* rows = nullptr;  // [R]
  TensorView log_sum_exp;            // f32 [R, 1] log(sum over all tokens of exp(logit))
  TensorView target;                 // f32 [R, 1] the target's logit
  TensorView ranked;                 // i32 [R, >= 3 n]: n RankedToken, the best in order
};

// A row beside the baseline of the same place.
struct RowComparison {
  double kl = 0;          // KL(baseline || row) in nats, >= 0; every sum and exponential in float64
  int32_t same_best = 0;  // 1: both have the same best token
  int32_t padding = 0;
};

// What arrays of them need of a tensor of 4-byte elements.
template <typename T>
constexpr int64_t kWords = static_cast<int64_t>(sizeof(T) / 4);
static_assert(sizeof(RankedToken) == 12 && sizeof(LogprobRow) == 8 && sizeof(RowComparison) == 16);
static_assert(sizeof(LogitEdit) == 24 && sizeof(SampleRow) == 56);
static_assert(std::is_trivially_copyable_v<SampleRow> && std::is_trivially_copyable_v<RowComparison>);

// Row r of a view of T, as above.
template <typename T>
PKV_HOST_DEVICE T* row_as(const TensorView& view, int64_t row) {
  return reinterpret_cast<T*>(view.i32_row(row));
}

// Makes a row's edits, and takes them back.
PKV_HOST_DEVICE inline void apply_edits(LogitEdit* edits, int32_t count, bool no_end, float* logits) {
  for (int32_t i = 0; i < count; ++i) {
    float& logit = logits[edits[i].token];
    edits[i].before = logit;
    logit = edited_logit(logit, edits[i], no_end);
  }
}
PKV_HOST_DEVICE inline void restore_edits(const LogitEdit* edits, int32_t count, float* logits) {
  for (int32_t i = 0; i < count; ++i) logits[edits[i].token] = edits[i].before;
}

}  // namespace pkv
