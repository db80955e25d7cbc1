// The functions that exist once per instruction set, as tables of pointers, and the plain data they work on. This
// header is compiled with every instruction set's flags, so it holds no function bodies.
#pragma once

#include <cstdint>

#include "kernels/cpu/isa_path.h"

namespace pkv {

struct CpuPaths;
struct IsaFeatures;

// Outputs per panel of a packed weight matrix; the last panel is padded with zeros.
constexpr int32_t kPanelOutputs = 16;
// Rows that a GEMM tile function takes in one call at most.
constexpr int32_t kGemmMaxRows = 264;
// Bytes of unpacked weights that stay in the second-level cache while many rows pass over them.
constexpr int64_t kGemmTileBytes = 256 << 10;
// In the first-level cache, for few rows.
constexpr int64_t kGemmFewRowsTileBytes = 24 << 10;
// Inputs whose bytes GemmKernels::step_bytes tells.
constexpr int64_t kGemmStep = 64;

enum class CodeKind : uint8_t { kNibble, kByte, kF16, kBF16, kF32 };

// How the weights of a group share parameters: weight = scale * code + min.
enum class ScaleKind : uint8_t {
  kNone,         // float weights
  kHalf,         // scale f16; min = -zero_point * scale
  kHalfMin,      // scale and min f16
  kSuperMin,     // blocks of 256: d, dmin f16, per group s, m u8; scale = d * s, min = -dmin * m
  kSuperSigned,  // blocks of 256: d f16, per group s i8; scale = d * s, min = -zero_point * scale
};

// A packed weight matrix: panels of 16 outputs, each holding all inputs. Within a panel, by group of inputs:
//   codes   kNibble  [4][16][4] bytes: byte (j, o, t) holds inputs 8j+t (low nibble) and 8j+4+t (high nibble) of output
//   o
//           kByte    [group / 4][16][4] bytes: byte (j, o, t) holds input 4j+t of output o
//           floats   [cols][16] elements
//   scales  as ScaleLayout says (linear/scale_layout.h)
struct PackedView {
  CodeKind code_kind = CodeKind::kF32;
  ScaleKind scale_kind = ScaleKind::kNone;
  int32_t group = 0;       // inputs that share a scale: 32 or 16; 0 for float weights
  int32_t zero_point = 0;  // where scale_kind has no min of its own
  int64_t rows = 0;        // outputs
  int64_t cols = 0;        // inputs
  const uint8_t* codes = nullptr;
  const uint8_t* scales = nullptr;
  int64_t panel_code_bytes = 0;
  int64_t panel_scale_bytes = 0;
  bool tolerant = false;  // as in WeightSource
};

// One tile of out = a b: `rows` rows of `a` against a buffer of unpacked panels. A row's dot products are summed over
// ascending inputs in one accumulator each, so neither the number of rows nor the split of the depth into chunks
// changes them. `a` and `partial` reach to a whole row_multiple of rows, `a` and `b` to a whole depth_multiple of
// inputs (GemmKernels).
struct GemmTile {
  const void* a = nullptr;  // [rows][depth] f32, bf16 or 8 bits
  int64_t a_stride = 0;     // elements
  const void* b = nullptr;  // [depth][tile outputs] f32, [depth / 2][tile outputs][2] bf16, or what else `unpack` made
  // Of 8-bit products alone, whose `a` holds what quantize_row made, strides in bytes.
  const PackedView* weight = nullptr;
  const float* row_scales = nullptr;  // [rows]
  int64_t depth = 0;                  // inputs of this chunk
  int32_t rows = 0;
  int32_t cols = 0;          // valid outputs
  bool first = true;         // start from zero, not from `partial`
  bool last = true;          // finish into `out`, not into `partial`
  bool accumulate = false;   // out += instead of out =
  float* partial = nullptr;  // [rows][tile outputs]
  float* out = nullptr;
  int64_t out_stride = 0;
};

struct GemmKernels {
  int32_t tile_panels = 0;              // panels side by side in a tile
  int32_t element_bytes = 0;            // of an unpacked weight, at most
  int32_t row_multiple = 6;             // rows that are multiplied at once
  int32_t depth_multiple = 1;           // inputs likewise: converted rows and unpacked weights are padded with zeros
  int64_t tile_bytes = kGemmTileBytes;  // of unpacked weights that many rows pass over
  // The same for few rows, where the chunks of the depth are part of the result.
  int64_t few_rows_tile_bytes = kGemmFewRowsTileBytes;
  // Writes inputs [k0, k1) of a panel to the tile buffer's panel `slot`, padded. k0 is a multiple of 32 and of
  // depth_multiple; k1 too, or the end.
  void (*unpack)(const PackedView& weight, int64_t panel, int64_t k0, int64_t k1, void* tile, int32_t slot) = nullptr;
  void (*multiply)(const GemmTile& tile) = nullptr;
  // Converts a row of activations (element_bytes wide), padded; nullptr: taken as they are.
  void (*convert_row)(const float* from, int64_t cols, void* to) = nullptr;
  // Instead, for 8-bit products: quantises a row for `weight` and says its scale; and the bytes that kGemmStep inputs
  // take.
  void (*quantize_row)(const float* from, const PackedView& weight, void* to, float* row_scale) = nullptr;
  int64_t (*step_bytes)(const PackedView& weight) = nullptr;
};

// Rows of activations quantised by group: x ~= scale * code, code in [-127, 127].
struct Int8Rows {
  int8_t* codes = nullptr;         // [rows][code_stride]
  float* scales = nullptr;         // [rows][group_stride]
  float* scaled_sums = nullptr;    // scale * sum of the group's codes
  int32_t* corrections = nullptr;  // -zero_point * sum of the group's codes
  int64_t code_stride = 0;
  int64_t group_stride = 0;
  int32_t rows = 0;
};

struct Int8Kernels {
  // Quantises x [weight.cols] into row `row`.
  void (*quantize_row)(const float* x, const PackedView& weight, int32_t row, const Int8Rows& to) = nullptr;
  // out[r, o] (+)= dot of row r and output o, for the outputs of panels [first, last).
  void (*multiply)(const PackedView& weight, int64_t first, int64_t last, const Int8Rows& x, bool accumulate,
                   float* out, int64_t out_stride) = nullptr;
};

struct LinearKernels {
  GemmKernels f32;
  GemmKernels bf16;       // multiply == nullptr: this path has none
  GemmKernels int8_gemm;  // likewise
  Int8Kernels int8;
};

struct ElementwiseKernels {
  void (*rms_norm)(const float* x, const float* gain, float eps, int64_t cols, float* out) = nullptr;
  void (*add)(float* x, const float* y, int64_t cols) = nullptr;
  void (*silu_mul)(float* gate, const float* up, int64_t cols) = nullptr;
  // maxima[i] = the largest of x[i * block .. (i + 1) * block), the last block cut at cols; -infinity where it is NaN
  // throughout. `block` is a multiple of 32.
  void (*block_maxima)(const float* x, int64_t cols, int64_t block, float* maxima) = nullptr;
  // sum of exp((x[c] - top) * scale): float32, short sums added up in float64. top >= x[c].
  double (*exp_sum)(const float* x, int64_t cols, float top, float scale) = nullptr;
  // cosines and sines [pairs] of one row; rotates `heads` heads of head_dim elements each.
  void (*rope_adjacent)(float* x, const float* cosines, const float* sines, int32_t pairs, int32_t heads,
                        int32_t head_dim) = nullptr;
  void (*rope_halves)(float* x, const float* cosines, const float* sines, int32_t pairs, int32_t heads,
                      int32_t head_dim) = nullptr;
};

// What there is: float32 products for each set's vectors, 8-bit and bfloat16 products where a set does them better.
template <>
const GemmKernels PathTable<GemmKernels, Isa::kScalar>::kernels;
template <>
const GemmKernels PathTable<GemmKernels, Isa::kAvx2>::kernels;
template <>
const GemmKernels PathTable<GemmKernels, Isa::kAvx512>::kernels;
template <>
const GemmKernels PathTable<GemmKernels, Isa::kAvx512Vnni>::kernels;
template <>
const GemmKernels PathTable<GemmKernels, Isa::kAvx512Bf16>::kernels;
template <>
const GemmKernels PathTable<GemmKernels, Isa::kAmxBf16>::kernels;
template <>
const Int8Kernels PathTable<Int8Kernels, Isa::kScalar>::kernels;
template <>
const Int8Kernels PathTable<Int8Kernels, Isa::kAvx2>::kernels;
template <>
const Int8Kernels PathTable<Int8Kernels, Isa::kAvx512Vnni>::kernels;
template <>
const ElementwiseKernels PathTable<ElementwiseKernels, Isa::kScalar>::kernels;
template <>
const ElementwiseKernels PathTable<ElementwiseKernels, Isa::kAvx2>::kernels;
template <>
const ElementwiseKernels PathTable<ElementwiseKernels, Isa::kAvx512>::kernels;

LinearKernels select_linear_kernels(const CpuPaths& paths);
ElementwiseKernels select_elementwise_kernels(const IsaFeatures& features);

}  // namespace pkv
