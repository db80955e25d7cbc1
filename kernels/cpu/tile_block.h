// A block of up to two by two tiles of sums: tiles 0 to 3 are sums, 4 and 5 rows, 6 and 7 columns. For sources that are
// compiled for AMX.
#pragma once

#include <cstdint>

#include "kernels/cpu/tiles.h"

namespace pkv {
namespace {

// Sums of kRowTiles * 16 rows and kColumnTiles * 16 columns.
template <int kRowTiles, int kColumnTiles>
class TileBlock {
 public:
  static void zero() {
    Tiles::zero<0>();
    if constexpr (kColumnTiles == 2) Tiles::zero<1>();
    if constexpr (kRowTiles == 2) {
      Tiles::zero<2>();
      if constexpr (kColumnTiles == 2) Tiles::zero<3>();
    }
  }
  // `stride`: elements from one row to the next, here and below.
  static void load(const float* sums, int64_t stride) {
    const int64_t bytes = stride * 4;
    const float* below = sums + kTileRows * stride;
    Tiles::load<0>(sums, bytes);
    if constexpr (kColumnTiles == 2) Tiles::load<1>(sums + kTileFloats, bytes);
    if constexpr (kRowTiles == 2) {
      Tiles::load<2>(below, bytes);
      if constexpr (kColumnTiles == 2) Tiles::load<3>(below + kTileFloats, bytes);
    }
  }
  static void store(float* sums, int64_t stride) {
    const int64_t bytes = stride * 4;
    float* below = sums + kTileRows * stride;
    Tiles::store<0>(sums, bytes);
    if constexpr (kColumnTiles == 2) Tiles::store<1>(sums + kTileFloats, bytes);
    if constexpr (kRowTiles == 2) {
      Tiles::store<2>(below, bytes);
      if constexpr (kColumnTiles == 2) Tiles::store<3>(below + kTileFloats, bytes);
    }
  }
  // Adds a b. a [rows][depth] bf16; b [depth / 2][columns] pairs of bf16; both zero up to a whole kTileDepth.
  static void multiply_add(const uint16_t* a, int64_t a_stride, const uint32_t* b, int64_t b_stride, int64_t depth) {
    for (int64_t k = 0; k < depth; k += kTileDepth, a += kTileDepth, b += kTileDepth / 2 * b_stride) {
      Tiles::load<4>(a, a_stride * 2);
      Tiles::load<6>(b, b_stride * 4);
      Tiles::multiply_add<0, 4, 6>();
      if constexpr (kColumnTiles == 2) {
        Tiles::load<7>(b + kTileFloats, b_stride * 4);
        Tiles::multiply_add<1, 4, 7>();
      }
      if constexpr (kRowTiles == 2) {
        Tiles::load<5>(a + kTileRows * a_stride, a_stride * 2);
        Tiles::multiply_add<2, 5, 6>();
        if constexpr (kColumnTiles == 2) Tiles::multiply_add<3, 5, 7>();
      }
    }
  }
};

}  // namespace
}  // namespace pkv
