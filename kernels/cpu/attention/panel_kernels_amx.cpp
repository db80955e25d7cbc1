// Prompt attention with AMX: queries, keys, weights and values rounded to bfloat16, products in tiles, softmax in
// float32.
#include "kernels/cpu/attention/bf16_panels.h"
#include "kernels/cpu/attention/observe_kernels.h"
#include "kernels/cpu/attention/softmax.h"
#include "kernels/cpu/tile_block.h"

namespace pkv {
namespace {

constexpr int32_t kPanelRows = 2 * kTileRows;
static_assert(kPanelRows <= kMaxPanelRows && kPanelCols == 2 * kTileFloats && kTileSlots % kTileDepth == 0);
static_assert(kScoreStride % kTileFloats == 0 && kSoftmaxBlock % kTileDepth == 0);
// Elements from one row's weights to the next: rows of a tile begin with a cache line.
constexpr int32_t kWeightStride = 2 * kScoreStride;
static_assert(kWeightStride * sizeof(uint16_t) % 64 == 0);

// [kPanelRows][head_dim padded to kTileDepth]
void pack_queries(const float* const* rows, int32_t count, int32_t head_dim, float scale, void* out) {
  auto* packed = static_cast<uint16_t*>(out);
  const int32_t depth = round_up(head_dim, kTileDepth);
  for (int32_t r = 0; r < kPanelRows; ++r) {
    for (int32_t k = 0; k < depth; k += V::kWidth, packed += V::kWidth) {
      const int32_t dims = r < count ? min_int(V::kWidth, head_dim - k) : 0;
      alignas(64) float q[V::kWidth] = {};
      if (dims > 0) V::store_range(q, V::load_first(rows[r] + k, dims) * V::broadcast(scale), 0, dims);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(packed), (__m256i)_mm512_cvtneps_pbh(V::load(q)));
    }
  }
}

// Scores of the first kRowTiles * 16 rows.
template <int kRowTiles>
void score_rows(const Panel& panel) {
  using Block = TileBlock<kRowTiles, 2>;
  const int32_t depth = round_up(panel.head_dim, kTileDepth);
  const auto* keys = static_cast<const uint32_t*>(panel.keys);
  for (int32_t column = 0; column < panel.count; column += kPanelCols, keys += depth / 2 * kPanelCols) {
    Block::zero();
    Block::multiply_add(static_cast<const uint16_t*>(panel.queries), depth, keys, kPanelCols, depth);
    Block::store(panel.scores + column, kScoreStride);
  }
}

// sums[r][0 .. kColumnTiles * 16) += weights[r] . values, of kRowTiles * 16 rows.
template <int kRowTiles, int kColumnTiles>
void add_values(const uint16_t* weights, const uint32_t* values, int32_t slots, float* sums, int32_t stride) {
  using Block = TileBlock<kRowTiles, kColumnTiles>;
  Block::load(sums, stride);
  Block::multiply_add(weights, kWeightStride, values, kPanelCols, slots);
  Block::store(sums, stride);
}

// The rows' weights as pairs of neighbouring slots, zero behind what they see; what was summed before is scaled to
// them.
void weigh_rows(const Panel& panel, const PanelState& state, int32_t rows, int32_t slots, uint16_t* weights) {
  const int32_t stride = padded_dim(panel.head_dim);
  for (int32_t r = 0; r < rows; ++r) {
    uint16_t* row = weights + r * kWeightStride;
    const int32_t limit = panel.limits[r];
    if (limit > 0) {
      const float keep = online_softmax(
          panel.scores + r * kScoreStride, limit, state.max + r, state.sum + r,
          [row](int32_t j, V::Type a, V::Type b) { _mm512_storeu_si512(row + j, bits(_mm512_cvtne2ps_pbh(b, a))); });
      float* sums = state.acc + r * stride;
      for (int32_t k = 0; k < stride; k += V::kWidth) V::store(sums + k, V::load(sums + k) * V::broadcast(keep));
    }
    for (int32_t j = whole_blocks(limit); j < slots; j += kSoftmaxBlock) {
      _mm512_storeu_si512(row + j, _mm512_setzero_si512());
    }
  }
}

template <int kRowTiles>
void attend_rows(const Panel& panel, const PanelState& state) {
  score_rows<kRowTiles>(panel);
  auto* weights = reinterpret_cast<uint16_t*>(panel.scores + kMaxPanelRows * kScoreStride);
  const int32_t slots = whole_blocks(panel.count);
  weigh_rows(panel, state, kRowTiles * kTileRows, slots, weights);
  const auto* values = static_cast<const uint32_t*>(panel.values);
  const int32_t stride = padded_dim(panel.head_dim);
  int32_t dim = 0;
  for (; dim + kPanelCols <= stride; dim += kPanelCols, values += kTileSlots / 2 * kPanelCols) {
    add_values<kRowTiles, 2>(weights, values, slots, state.acc + dim, stride);
  }
  if (dim < stride) add_values<kRowTiles, 1>(weights, values, slots, state.acc + dim, stride);
}

bool needs_second_tile(const Panel& panel) {
  bool second_tile = false;
  for (int32_t r = kTileRows; r < kPanelRows; ++r) second_tile |= panel.limits[r] > 0;
  return second_tile;
}

void attend_panel(const Panel& panel, const PanelState& state) {
  const Tiles tiles;
  needs_second_tile(panel) ? attend_rows<2>(panel, state) : attend_rows<1>(panel, state);
}

void score_panel(const Panel& panel) {
  const Tiles tiles;
  needs_second_tile(panel) ? score_rows<2>(panel) : score_rows<1>(panel);
}

}  // namespace

template <>
constinit const PanelKernels PathTable<PanelKernels, Isa::kAmxBf16>::kernels = {
    .rows = kPanelRows,
    .element_bytes = 2,
    .pack_queries = pack_queries,
    .pack_keys = pack_keys<kTileDepth>,
    .pack_values = pack_values<kTileDepth>,
    .attend = attend_panel,
    .lse = lse_panel<kPanelRows, score_panel>,
    .mass = mass_panel<kPanelRows, score_panel>,
    .add_weights = add_weights<kPanelRows>};

}  // namespace pkv
