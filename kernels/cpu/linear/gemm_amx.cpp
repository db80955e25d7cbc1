// Matrix products with AMX: weights and activations rounded to bfloat16, sums in float32 tiles.
#include "kernels/cpu/linear/bf16_operands.h"
#include "kernels/cpu/tile_block.h"

namespace pkv {
namespace {

constexpr int32_t kBlockOutputs = 2 * kPanelOutputs;
static_assert(kTileFloats == kPanelOutputs && kTileFloats == V::kWidth);

// Up to 32 rows from `row` on, and one or two panels from `panel` on, which is even.
template <int kRowTiles, int kPanels>
void multiply_block(const GemmTile& tile, int32_t row, int32_t panel) {
  using Block = TileBlock<kRowTiles, kPanels>;
  float* partial = tile.partial + int64_t{row} * kTileOutputs + panel * kPanelOutputs;
  if (tile.first) {
    Block::zero();
  } else {
    Block::load(partial, kTileOutputs);
  }
  const int64_t pairs = (tile.depth + kTileDepth - 1) / kTileDepth * kTileDepth / 2;
  Block::multiply_add(static_cast<const uint16_t*>(tile.a) + row * tile.a_stride, tile.a_stride,
                      static_cast<const uint32_t*>(tile.b) + panel * kPanelOutputs * pairs, kBlockOutputs, tile.depth);
  if (!tile.last) {
    Block::store(partial, kTileOutputs);
    return;
  }
  constexpr int32_t kColumns = kPanels * kTileFloats;
  alignas(64) float sums[kRowTiles * kTileRows * kColumns];
  Block::store(sums, kColumns);
  const int32_t rows = tile.rows - row < kRowTiles * kTileRows ? tile.rows - row : kRowTiles * kTileRows;
  for (int32_t r = 0; r < rows; ++r) {
    for (int32_t p = 0; p < kPanels; ++p) {
      const int32_t output = (panel + p) * kPanelOutputs;
      store_outputs(V::load(sums + r * kColumns + p * kTileFloats), tile.cols - output, tile.accumulate,
                    tile.out + (row + r) * tile.out_stride + output);
    }
  }
}

// Weights of two panels, which lie together, stay in the first-level cache while all rows pass over them.
void multiply(const GemmTile& tile) {
  const Tiles tiles;
  const int32_t panels = (tile.cols + kPanelOutputs - 1) / kPanelOutputs;
  for (int32_t panel = 0; panel < panels; panel += 2) {
    for (int32_t row = 0; row < tile.rows; row += 2 * kTileRows) {
      const bool two_rows = tile.rows - row > kTileRows, two_panels = panels - panel > 1;
      const auto block = two_rows ? (two_panels ? multiply_block<2, 2> : multiply_block<2, 1>)
                                  : (two_panels ? multiply_block<1, 2> : multiply_block<1, 1>);
      block(tile, row, panel);
    }
  }
}

// 384 inputs deep: two panels of weights and 32 rows take 24 KiB each, together the 48 of a first-level cache.
constexpr int64_t kTileBytes = 384 * kTileOutputs * 2;

}  // namespace

template <>
constinit const GemmKernels PathTable<GemmKernels, Isa::kAmxBf16>::kernels = {
    .tile_panels = kTilePanels,
    .element_bytes = 2,
    .row_multiple = 2 * kTileRows,
    .depth_multiple = kTileDepth,
    .tile_bytes = kTileBytes,
    .unpack = unpack_pairs<kTileDepth, kBlockOutputs>,
    .multiply = multiply,
    .convert_row = round_row<kTileDepth>};

}  // namespace pkv
