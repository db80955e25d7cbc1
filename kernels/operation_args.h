// What operations of a backend are told besides tensors. Plain data, the same structs on every backend; pointers in
// them are backend memory. Shapes as in backend.h.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/kv_view.h"
#include "kernels/sparse_attention.h"
#include "kernels/tensor.h"

namespace pkv {

// Which kernels a step may use: many rows of one prompt, or one row each of many sequences. Results of the two may
// differ in the last bits (or, outside exact mode, by the quantisation of activations).
enum class Phase : uint8_t { kPrefill, kDecode };

// How RoPE pairs the dimensions of a head: (2i, 2i+1) as GGUF stores llama, or (i, i + d/2) as it stores qwen2.
enum class RopePairing : uint8_t { kAdjacent, kHalves };

// Rotary position embedding (RoFormer, arXiv 2104.09864, eq. 34): dimension pair i of a head turns by position *
// inv_freq[i]. The angle is that product in float32, as models are trained with (the exact one differs by 2e-4 at
// position 8000).
struct RopeSpec {
  const float* inv_freq = nullptr;  // [pairs], frequency scaling already applied
  int32_t pairs = 0;                // of dimensions that turn; those beyond 2 * pairs are left as they are
  RopePairing pairing = RopePairing::kAdjacent;
  int32_t head_dim = 0;
  float magnitude = 1.0f;  // multiplies cos and sin (1 except for some scaled models)
};

struct AttendArgs {
  TensorView q;    // [R, Hq * d], after RoPE
  TensorView out;  // [R, Hq * d]
  TensorView lse;  // [R, Hq] natural-log-sum-exp of the scaled scores, or data == nullptr
  KvView kv;
  RowSpans spans;            // disjoint, ascending rows
  int32_t skipped_rows = 0;  // the first rows of the spans that have none in q, out and lse: row r there is theirs at
                             // r + skipped_rows
  int32_t q_heads = 0;
  int32_t kv_heads = 0;
  float scale = 0;  // 1 / sqrt(d)
  Phase phase = Phase::kDecode;
  SparsePattern sparse;  // of the only span's lanes, a prompt's; only where BackendTraits say so

  // The span's first row that is not skipped; its number of rows where all are.
  PKV_HOST_DEVICE int32_t first_row(const RowSpan& span) const {
    return std::clamp(skipped_rows - span.first_row, 0, span.rows);
  }
};

// Observation rows: queries of one sequence against one layer's lanes. Row r sees all of a lane's slots but the newest
// max(0, unseen - r): with unseen == R - 1 the rows are those of the newest R slots, with 0 every row sees everything.
struct ObserveArgs {
  TensorView q;  // [R, Hq * d], after RoPE
  KvView kv;
  int32_t first_lane = 0;  // the sequence's lanes are [first_lane, first_lane + kv_heads)
  int32_t unseen = 0;
  int32_t q_heads = 0;
  int32_t kv_heads = 0;
  float scale = 0;

  // Slots [0, visible) that a row sees of a lane of `length`.
  PKV_HOST_DEVICE int32_t visible(int32_t length, int32_t row) const {
    return std::max(0, length - std::max(0, unseen - row));
  }
};

// Rows at the beginning of every lane of a sequence, in all its layers, whose keys are to stand elsewhere.
struct TurnedRows {
  TensorView keys, values;  // [layers * rows, Hkv * d] as they were written first, layer after layer
  TensorView turned;        // [rows, Hkv * d] room for one layer's
  int32_t rows = 0;         // S
  int32_t delta = 0;        // positions by which the keys are turned further
  KvView kv;                // KV head g of layer l: kv.lanes[l * lanes_per_layer + first_lane + g]
  int32_t first_lane = 0;
  int32_t lanes_per_layer = 0;
  int32_t layers = 0;
  int32_t kv_heads = 0;
};

enum class PoolKind : uint8_t { kNone, kMax, kAvg };     // Max pads with -inf, Avg with zeros that count
enum class GroupReduce : uint8_t { kMean, kMax, kSum };  // over the G query heads of a KV head

// How a layer's lanes come to how much they keep where that depends on their scores.
struct LayerShare {
  int32_t window = 0;
  int32_t smallest_lane = 0;  // at least the window
  int32_t largest_lane = 0;   // at least the smallest
  int64_t total = 0;          // of all lanes together, at least lanes * smallest_lane
};
struct RecallShare {
  int32_t window = 0;
  int32_t largest_lane = 0;  // at least the window
  double recall = 0;         // in (0, 1]
};

}  // namespace pkv
