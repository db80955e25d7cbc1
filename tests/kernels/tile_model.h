// AMX's tile instructions as plain C++ where the CPU has none, so that the AMX kernels' packing and loops are verified
// everywhere; included by kernels/cpu/tiles.h (PKV_TILES_HEADER).
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "kernels/cpu/amx.h"

namespace pkv {
namespace {

// As HardwareTiles. Tiles are undefined until something fills them: NaN.
class ModelTiles {
 public:
  static void configure() {
    if (configured_) std::abort();
    configured_ = true;
    std::memset(tiles_, 0xff, sizeof(tiles_));
  }
  static void release() { configured_ = false; }
  template <int kTile>
  static void zero() {
    std::memset(tile(kTile), 0, sizeof(Tile));
  }
  template <int kTile>
  static void load(const void* from, int64_t stride) {
    for (int32_t row = 0; row < kTileRows; ++row) {
      std::memcpy(tile(kTile)[row], static_cast<const char*>(from) + row * stride, sizeof(tiles_[kTile][row]));
    }
  }
  template <int kTile>
  static void store(void* to, int64_t stride) {
    for (int32_t row = 0; row < kTileRows; ++row) {
      std::memcpy(static_cast<char*>(to) + row * stride, tile(kTile)[row], sizeof(tiles_[kTile][row]));
    }
  }
  // TDPBF16PS (Intel SDM, volume 2): even and odd inputs are summed apart, then together.
  template <int kSum, int kA, int kB>
  static void multiply_add() {
    for (int32_t row = 0; row < kTileRows; ++row) {
      for (int32_t column = 0; column < kTileFloats; ++column) {
        float even = 0, odd = 0;
        for (int32_t pair = 0; pair < kTileDepth / 2; ++pair) {
          const uint32_t a = tile(kA)[row][pair], b = tile(kB)[pair][column];
          even = flush(std::fma(low(a), low(b), even));
          odd = flush(std::fma(high(a), high(b), odd));
        }
        uint32_t& sum = tile(kSum)[row][column];
        sum = std::bit_cast<uint32_t>(flush(flush(std::bit_cast<float>(sum)) + flush(even + odd)));
      }
    }
  }

 private:
  using Tile = uint32_t[kTileRows][kTileFloats];

  static Tile& tile(int number) {
    if (!configured_) std::abort();
    return tiles_[number];
  }
  // Denormal numbers are zeros, as operands and as results.
  static float flush(float x) { return std::fabs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : x; }
  static float low(uint32_t pair) { return flush(std::bit_cast<float>(pair << 16)); }
  static float high(uint32_t pair) { return flush(std::bit_cast<float>(pair & 0xffff0000u)); }

  static inline thread_local Tile tiles_[8];
  static inline thread_local bool configured_ = false;
};

class Tiles {
 public:
  static bool usable() { return true; }
  Tiles() { has_tiles() ? HardwareTiles::configure() : ModelTiles::configure(); }
  ~Tiles() { has_tiles() ? HardwareTiles::release() : ModelTiles::release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

  template <int kTile>
  static void zero() {
    has_tiles() ? HardwareTiles::zero<kTile>() : ModelTiles::zero<kTile>();
  }
  template <int kTile>
  static void load(const void* from, int64_t stride) {
    has_tiles() ? HardwareTiles::load<kTile>(from, stride) : ModelTiles::load<kTile>(from, stride);
  }
  template <int kTile>
  static void store(void* to, int64_t stride) {
    has_tiles() ? HardwareTiles::store<kTile>(to, stride) : ModelTiles::store<kTile>(to, stride);
  }
  template <int kSum, int kA, int kB>
  static void multiply_add() {
    has_tiles() ? HardwareTiles::multiply_add<kSum, kA, kB>() : ModelTiles::multiply_add<kSum, kA, kB>();
  }

 private:
  static bool has_tiles() {
    static const bool kHas = request_amx_bf16();
    return kHas;
  }
};

}  // namespace
}  // namespace pkv
