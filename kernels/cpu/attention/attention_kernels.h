// What one instruction set offers to attention and observation: a table of coarse functions over plain data. The files
// that fill the tables are compiled with their own flags, so this header holds nothing that could be emitted in two of
// them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/isa_path.h"
#include "kernels/cpu/lanes/entry_elements.h"

namespace pkv {

// Prompt attention and observation walk a lane in tiles of this many slots, counted from the lane's start.
constexpr int32_t kTileSlots = 512;
// Floats from one row of a panel's scores to the next: not a multiple of the L1 way size.
constexpr int32_t kScoreStride = kTileSlots + 16;
// Behind each row of a decode tile's scores: to the end of a last block of two vectors.
constexpr int32_t kScorePadding = 32;
// The most rows and columns any table's panels have.
constexpr int32_t kMaxPanelRows = 32;
constexpr int32_t kMaxPanelCols = 32;

// One lane's pages; slot s lies in page page_ids[s / slots], place s % slots.
struct LanePages {
  const std::byte* pool = nullptr;
  const int32_t* page_ids = nullptr;
  int64_t page_bytes = 0;
  int32_t value_offset = 0;  // bytes from a page's start to its values, and to the scales of its format if it has any
  int32_t key_scale_offset = 0;
  int32_t value_scale_offset = 0;
  int32_t slots = 0;  // per page
  int32_t head_dim = 0;
  KvDtype format = KvDtype::kF32;
};

// One query row's G heads over whole pages of one lane, from the first slot of pages.page_ids[0] on. Scores are in log2
// units: q carries scale * log2(e).
struct DecodeTile {
  LanePages pages;
  int32_t count = 0;         // slots to see, >= 1
  int32_t pages_ahead = 0;   // of the lane from the tile's first page on; those after the tile are only fetched ahead
  int32_t group = 0;         // G
  const float* q = nullptr;  // [head_dim][G]
  float* scores = nullptr;   // scratch [G][score_stride]
  int32_t score_stride = 0;  // >= count rounded up to whole pages, + kScorePadding
  float* partial = nullptr;  // out: sums of weighted values [G][head_dim], maximum [G], sum of weights [G]
};

// Merges `tiles` partial results (as DecodeTile leaves them) in order.
struct CombineTiles {
  const float* partials = nullptr;
  int32_t tiles = 0;
  int32_t group = 0;
  int32_t head_dim = 0;
  float* out = nullptr;  // [G][head_dim]
  float* max = nullptr;  // [G], log2 units
  float* sum = nullptr;  // [G]
};

// A panel of query rows against one packed tile.
struct Panel {
  const void* queries = nullptr;    // one panel of pack_queries
  const void* keys = nullptr;       // of pack_keys
  const void* values = nullptr;     // of pack_values; attend only
  const int32_t* limits = nullptr;  // [rows] slots of the tile that a row sees, 0 .. count
  int32_t head_dim = 0;
  int32_t count = 0;        // the largest of `limits`, >= 1
  float* scores = nullptr;  // scratch [2][kMaxPanelRows][kScoreStride]
};

// Running softmax of a panel's rows.
struct PanelState {
  float* max = nullptr;  // [rows] log2 units; -infinity before the first tile
  float* sum = nullptr;  // [rows]
  float* acc = nullptr;  // [rows][padded_dim(head_dim)]
};

// Where a panel's rows add their attention weights.
struct PanelMass {
  const float* lse = nullptr;       // [rows] log2 units
  float* const* sums = nullptr;     // [rows] where the tile's first column goes; rows may share one
  float* const* squares = nullptr;  // likewise, or nullptr
};

constexpr int32_t padded_dim(int32_t head_dim) { return (head_dim + 15) / 16 * 16; }

// Room for a factor in columns of up to 16, each from its diagonal down.
constexpr int64_t packed_factor_floats(int32_t head_dim) { return int64_t{head_dim} * padded_dim(head_dim); }

// Operands packed for register-blocked products. Room in floats, which is enough for any kind of element: queries
// padded_dim * rows a panel, keys and values kTileSlots * (head_dim rounded up to kMaxPanelCols) a tile.
struct PanelKernels {
  int32_t rows = 0;           // query rows of a panel
  int32_t element_bytes = 0;  // of packed operands
  // One panel: rows[i] (head_dim floats) for i < count, times `scale`; the rest of the panel is zero.
  void (*pack_queries)(const float* const* rows, int32_t count, int32_t head_dim, float scale, void* out) = nullptr;
  // Slots [first, first + count) of a lane become the tile's from `place` on, a multiple of kMaxPanelCols; place +
  // count
  // <= kTileSlots.
  void (*pack_keys)(const LanePages& pages, int32_t first, int32_t count, int32_t place, void* out) = nullptr;
  void (*pack_values)(const LanePages& pages, int32_t first, int32_t count, int32_t place, void* out) = nullptr;
  void (*attend)(const Panel& panel, const PanelState& state) = nullptr;
  // Maximum and sum of weights of each row over the tile alone; -infinity and 0 for a row that sees nothing. The
  // weights, relative to that maximum, are in panel.scores then.
  void (*lse)(const Panel& panel, float* max, float* sum) = nullptr;
  // Adds each row's weights, rows in ascending order.
  void (*mass)(const Panel& panel, const PanelMass& mass) = nullptr;
  // The same of weights that are in panel.scores, times 2^-lse.
  void (*add_weights)(const Panel& panel, const PanelMass& mass) = nullptr;
};

struct AttentionKernels {
  PanelKernels panel;  // float32
  void (*decode_tile)(const DecodeTile& tile) = nullptr;
  void (*combine_tiles)(const CombineTiles& args) = nullptr;
  // Rounded to nearest even.
  void (*to_half)(const float* from, uint16_t* to, int64_t count) = nullptr;
  // factor_norms() takes a lower triangular [head_dim][head_dim] factor packed by pack_factor() to
  // packed_factor_floats() floats. norms[j] = |v_j factor| of `count` values [count][head_dim].
  void (*pack_factor)(const float* factor, int64_t stride, int32_t head_dim, float* packed) = nullptr;
  void (*factor_norms)(const float* values, int32_t count, const float* packed, int32_t head_dim,
                       float* norms) = nullptr;
  void (*to_bfloat16)(const float* from, Bfloat16* to, int64_t count) = nullptr;
  // Exact. May read up to eight elements behind the last one.
  void (*half_to_float)(const uint16_t* from, float* to, int64_t count) = nullptr;
  void (*bfloat16_to_float)(const Bfloat16* from, float* to, int64_t count) = nullptr;
};

template <>
const AttentionKernels PathTable<AttentionKernels, Isa::kScalar>::kernels;
template <>
const AttentionKernels PathTable<AttentionKernels, Isa::kAvx2>::kernels;
template <>
const AttentionKernels PathTable<AttentionKernels, Isa::kAvx512>::kernels;
template <>
const PanelKernels PathTable<PanelKernels, Isa::kAvx512Bf16>::kernels;
template <>
const PanelKernels PathTable<PanelKernels, Isa::kAmxBf16>::kernels;

}  // namespace pkv
