// AMX's eight tile registers: 16 rows of 64 bytes each. Numbers of tiles are template arguments, as the instructions
// hold them. For sources that are compiled for AMX; tests compile the same sources with a model of the instructions
// (PKV_TILES_HEADER), so that packing and loops are verified on CPUs without them.
#pragma once

#include <cstdint>

#include "kernels/cpu/amx.h"

namespace pkv {
namespace {

constexpr int32_t kTileRows = 16;
constexpr int32_t kTileFloats = 16;  // in a row
constexpr int32_t kTileDepth = 32;   // bf16 inputs that one instruction multiplies

// Memory of tilecfg (Intel SDM, volume 1, chapter 18).
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);

struct HardwareTiles {
  static bool usable() { return request_amx_bf16(); }
  static void configure() {
    static const TileConfig kConfig;
    asm volatile("ldtilecfg %0" ::"m"(kConfig));
  }
  static void release() { asm volatile("tilerelease"); }
  template <int kTile>
  static void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
  }
  // Rows at `from`, `stride` bytes apart.
  template <int kTile>
  static void load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(kTile) : "memory");
  }
  template <int kTile>
  static void store(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(kTile) : "memory");
  }
  // kSum [16][16] f32 += kA [16][32] bf16 * kB [32][16] bf16, kB as [16][16] pairs of neighbouring inputs.
  template <int kSum, int kA, int kB>
  static void multiply_add() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kA), "i"(kB));
  }
};

}  // namespace
}  // namespace pkv

#if defined(PKV_TILES_HEADER)
#include PKV_TILES_HEADER
#else
namespace pkv {
namespace {

// Tiles may be used from construction to destruction, by one thread, which holds no other.
struct Tiles : HardwareTiles {
  Tiles() { configure(); }
  ~Tiles() { release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

}  // namespace
}  // namespace pkv
#endif
