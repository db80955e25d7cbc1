// Matrix products with AVX2, FMA and F16C: 6 x 16 tiles in float32, and 8-bit dot products through vpmaddubsw.
#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/cpu/kernel_table.h"

namespace pkv {
namespace {

constexpr int32_t kP = kPanelOutputs;

struct Pair {  // 16 outputs
  __m256 low, high;
};

inline Pair load_halves(const uint8_t* from) {
  const auto* halves = reinterpret_cast<const __m128i*>(from);
  return {_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
}

inline Pair load_bytes(const uint8_t* from, bool is_signed) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  const __m128i upper = _mm_srli_si128(bytes, 8);
  if (is_signed) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(upper))};
  }
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)), _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(upper))};
}

inline Pair times(Pair a, Pair b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
inline Pair times(Pair a, __m256 b) { return {_mm256_mul_ps(a.low, b), _mm256_mul_ps(a.high, b)}; }

struct Scales {  // weight = scale * code + min
  Pair scale, min;
};

inline Scales load_scales(const PackedView& weight, const uint8_t* scales, int64_t group) {
  const __m256 negative_zero_point = _mm256_set1_ps(-static_cast<float>(weight.zero_point));
  switch (weight.scale_kind) {
    case ScaleKind::kHalfMin:
      return {load_halves(scales + group * 64), load_halves(scales + group * 64 + 32)};
    case ScaleKind::kSuperMin: {
      const uint8_t* super = scales + group / 8 * 320;
      const uint8_t* bytes = super + 64 + group % 8 * kP;
      const Pair min = times(load_halves(super + 32), load_bytes(bytes + 8 * kP, false));
      return {times(load_halves(super), load_bytes(bytes, false)), times(min, _mm256_set1_ps(-1.0f))};
    }
    case ScaleKind::kSuperSigned: {
      const uint8_t* super = scales + group / 16 * 288;
      const Pair scale = times(load_halves(super), load_bytes(super + 32 + group % 16 * kP, true));
      return {scale, times(scale, negative_zero_point)};
    }
    default: {
      const Pair scale = load_halves(scales + group * 32);
      return {scale, times(scale, negative_zero_point)};
    }
  }
}

// ---- unpacking to float32

// Codes of four inputs, one in each byte of an output's 32-bit lane, to four rows of the tile buffer.
inline void unpack_quad(__m256i low, __m256i high, const Scales& s, float* to) {
  const __m256i mask = _mm256_set1_epi32(255);
  for (int32_t t = 0; t < 4; ++t) {
    const __m256 l = _mm256_cvtepi32_ps(_mm256_and_si256(low, mask));
    const __m256 h = _mm256_cvtepi32_ps(_mm256_and_si256(high, mask));
    _mm256_storeu_ps(to + t * kP, _mm256_fmadd_ps(l, s.scale.low, s.min.low));
    _mm256_storeu_ps(to + t * kP + 8, _mm256_fmadd_ps(h, s.scale.high, s.min.high));
    low = _mm256_srli_epi32(low, 8);
    high = _mm256_srli_epi32(high, 8);
  }
}

void unpack_floats(const PackedView& weight, const uint8_t* panel, int64_t k0, int64_t k1, float* to) {
  const int64_t bytes = weight.code_kind == CodeKind::kF32 ? 4 * kP : 2 * kP;
  for (int64_t k = k0; k < k1; ++k, to += kP) {
    // The panel's next chunk: with few rows chunks are too short for the hardware to foresee where it lies.
    _mm_prefetch(reinterpret_cast<const char*>(panel + (k + k1 - k0) * bytes), _MM_HINT_T0);
    Pair values;
    if (weight.code_kind == CodeKind::kF16) {
      values = load_halves(panel + k * 2 * kP);
    } else if (weight.code_kind == CodeKind::kF32) {
      const auto* from = reinterpret_cast<const float*>(panel) + k * kP;
      values = {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)};
    } else {
      const auto* from = reinterpret_cast<const __m128i*>(panel + k * 2 * kP);
      const __m256i low = _mm256_cvtepu16_epi32(_mm_loadu_si128(from));
      const __m256i high = _mm256_cvtepu16_epi32(_mm_loadu_si128(from + 1));
      values = {_mm256_castsi256_ps(_mm256_slli_epi32(low, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(high, 16))};
    }
    _mm256_storeu_ps(to, values.low);
    _mm256_storeu_ps(to + 8, values.high);
  }
}

void unpack(const PackedView& weight, int64_t panel, int64_t k0, int64_t k1, void* tile, int32_t) {
  auto* to = static_cast<float*>(tile);
  const uint8_t* codes = weight.codes + panel * weight.panel_code_bytes;
  if (weight.scale_kind == ScaleKind::kNone) return unpack_floats(weight, codes, k0, k1, to);
  const uint8_t* scales = weight.scales + panel * weight.panel_scale_bytes;
  const __m256i nibble = _mm256_set1_epi8(15);
  for (int64_t k = k0; k < k1; k += weight.group) {
    const Scales s = load_scales(weight, scales, k / weight.group);
    if (weight.code_kind == CodeKind::kByte) {
      for (int64_t q = k / 4; q < (k + weight.group) / 4; ++q, to += 4 * kP) {
        const auto* from = reinterpret_cast<const __m256i*>(codes + q * 64);
        unpack_quad(_mm256_loadu_si256(from), _mm256_loadu_si256(from + 1), s, to);
      }
      continue;
    }
    for (int64_t q = k / 8; q < (k + weight.group) / 8; ++q, to += 8 * kP) {
      const auto* from = reinterpret_cast<const __m256i*>(codes + q * 64);
      const __m256i a = _mm256_loadu_si256(from), b = _mm256_loadu_si256(from + 1);
      unpack_quad(_mm256_and_si256(a, nibble), _mm256_and_si256(b, nibble), s, to);
      unpack_quad(_mm256_and_si256(_mm256_srli_epi16(a, 4), nibble), _mm256_and_si256(_mm256_srli_epi16(b, 4), nibble),
                  s, to + 4 * kP);
    }
  }
}

// ---- float32 tiles

inline void store_outputs(Pair sums, int64_t cols, bool accumulate, float* out) {
  if (cols >= kP) {
    if (accumulate) {
      sums = {_mm256_add_ps(_mm256_loadu_ps(out), sums.low), _mm256_add_ps(_mm256_loadu_ps(out + 8), sums.high)};
    }
    _mm256_storeu_ps(out, sums.low);
    _mm256_storeu_ps(out + 8, sums.high);
    return;
  }
  float values[kP];
  _mm256_storeu_ps(values, sums.low);
  _mm256_storeu_ps(values + 8, sums.high);
  for (int64_t o = 0; o < cols; ++o) out[o] = accumulate ? out[o] + values[o] : values[o];
}

template <int kRows>
void multiply_rows(const GemmTile& tile, int32_t row) {
  const float* a = static_cast<const float*>(tile.a) + row * tile.a_stride;
  const auto* b = static_cast<const float*>(tile.b);
  float* partial = tile.partial + static_cast<int64_t>(row) * kP;
  Pair sums[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    sums[r] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    if (!tile.first) sums[r] = {_mm256_loadu_ps(partial + r * kP), _mm256_loadu_ps(partial + r * kP + 8)};
  }
  for (int64_t k = 0; k < tile.depth; ++k, b += kP) {
    const __m256 low = _mm256_loadu_ps(b), high = _mm256_loadu_ps(b + 8);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m256 x = _mm256_broadcast_ss(a + r * tile.a_stride + k);
      sums[r].low = _mm256_fmadd_ps(x, low, sums[r].low);
      sums[r].high = _mm256_fmadd_ps(x, high, sums[r].high);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    if (tile.last) {
      store_outputs(sums[r], tile.cols, tile.accumulate, tile.out + (row + r) * tile.out_stride);
    } else {
      _mm256_storeu_ps(partial + r * kP, sums[r].low);
      _mm256_storeu_ps(partial + r * kP + 8, sums[r].high);
    }
  }
}

void multiply_f32(const GemmTile& tile) {
  int32_t row = 0;
  for (; row + 6 <= tile.rows; row += 6) multiply_rows<6>(tile, row);
  switch (tile.rows - row) {
    case 5:
      return multiply_rows<5>(tile, row);
    case 4:
      return multiply_rows<4>(tile, row);
    case 3:
      return multiply_rows<3>(tile, row);
    case 2:
      return multiply_rows<2>(tile, row);
    case 1:
      return multiply_rows<1>(tile, row);
    default:
      return;
  }
}

// ---- 8-bit dot products

inline float largest_magnitude(const float* x, int32_t count) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  __m256 largest = _mm256_setzero_ps();
  for (int32_t i = 0; i < count; i += 8)
    largest = _mm256_max_ps(largest, _mm256_andnot_ps(sign, _mm256_loadu_ps(x + i)));
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps(largest, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

// Sixteen floats times `inverse`, rounded to nearest even, to bytes in order. Returns their sums by four 32-bit lanes.
inline __m128i quantize_16(const float* x, __m256 inverse, int8_t* to) {
  const __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), inverse));
  const __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8), inverse));
  const __m256i sum = _mm256_add_epi32(a, b);
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                   _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
  return _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
}

void quantize_row(const float* x, const PackedView& weight, int32_t row, const Int8Rows& to) {
  int8_t* codes = to.codes + row * to.code_stride;
  const int64_t groups = weight.cols / weight.group;
  for (int64_t group = 0; group < groups; ++group) {
    const float* from = x + group * weight.group;
    const float largest = largest_magnitude(from, weight.group);
    const __m256 inverse = _mm256_set1_ps(largest > 0 ? 127.0f / largest : 0.0f);
    __m128i sums = _mm_setzero_si128();
    for (int32_t i = 0; i < weight.group; i += 16) {
      sums = _mm_add_epi32(sums, quantize_16(from + i, inverse, codes + group * weight.group + i));
    }
    sums = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0x4e));
    const int32_t sum = _mm_cvtsi128_si32(_mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0xb1)));
    const int64_t at = row * to.group_stride + group;
    to.scales[at] = largest / 127.0f;
    to.scaled_sums[at] = to.scales[at] * static_cast<float>(sum);
    to.corrections[at] = -weight.zero_point * sum;
  }
}

typedef int32_t __attribute__((may_alias)) Quad;  // four codes of activations

inline __m256i broadcast_quad(const int8_t* x) { return _mm256_set1_epi32(*reinterpret_cast<const Quad*>(x)); }

struct Dots {
  __m256i low, high;
};

// Nibbles: |code * x| <= 15 * 127, so the 16 products of a lane's 16-bit half (8 loads of pairs) stay below 2^15.
template <int kRows>
inline void dot_nibbles(const uint8_t* codes, const int8_t* x, int64_t stride, const int32_t* corrections,
                        int64_t group_stride, Dots* dots) {
  const __m256i nibble = _mm256_set1_epi8(15);
  const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) dots[r] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  for (int j = 0; j < 4; ++j) {
    const auto* from = reinterpret_cast<const __m256i*>(codes + j * 64);
    const __m256i a = _mm256_loadu_si256(from), b = _mm256_loadu_si256(from + 1);
    const __m256i a0 = _mm256_and_si256(a, nibble), a1 = _mm256_and_si256(_mm256_srli_epi16(a, 4), nibble);
    const __m256i b0 = _mm256_and_si256(b, nibble), b1 = _mm256_and_si256(_mm256_srli_epi16(b, 4), nibble);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m256i x0 = broadcast_quad(x + r * stride + 8 * j), x1 = broadcast_quad(x + r * stride + 8 * j + 4);
      dots[r].low = _mm256_add_epi16(dots[r].low, _mm256_maddubs_epi16(a0, x0));
      dots[r].low = _mm256_add_epi16(dots[r].low, _mm256_maddubs_epi16(a1, x1));
      dots[r].high = _mm256_add_epi16(dots[r].high, _mm256_maddubs_epi16(b0, x0));
      dots[r].high = _mm256_add_epi16(dots[r].high, _mm256_maddubs_epi16(b1, x1));
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const __m256i correction = _mm256_set1_epi32(corrections[r * group_stride]);
    dots[r].low = _mm256_add_epi32(correction, _mm256_madd_epi16(dots[r].low, ones));
    dots[r].high = _mm256_add_epi32(correction, _mm256_madd_epi16(dots[r].high, ones));
  }
}

// Bytes: the zero point is taken off first, then |w| times x with w's sign, since vpmaddubsw wants one operand
// unsigned; |w| <= 128 and |x| <= 127 keep the pair sums below 2^15. `corrections` are not needed.
template <int kRows>
inline void dot_bytes(const uint8_t* codes, int32_t group, __m256i zero_point, const int8_t* x, int64_t stride,
                      Dots* dots) {
  const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) dots[r] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  for (int j = 0; j < group / 4; ++j) {
    const auto* from = reinterpret_cast<const __m256i*>(codes + j * 64);
    const __m256i a = _mm256_sub_epi8(_mm256_loadu_si256(from), zero_point);
    const __m256i b = _mm256_sub_epi8(_mm256_loadu_si256(from + 1), zero_point);
    const __m256i a_size = _mm256_abs_epi8(a), b_size = _mm256_abs_epi8(b);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m256i q = broadcast_quad(x + r * stride + 4 * j);
      const __m256i low = _mm256_maddubs_epi16(a_size, _mm256_sign_epi8(q, a));
      const __m256i high = _mm256_maddubs_epi16(b_size, _mm256_sign_epi8(q, b));
      dots[r].low = _mm256_add_epi32(dots[r].low, _mm256_madd_epi16(low, ones));
      dots[r].high = _mm256_add_epi32(dots[r].high, _mm256_madd_epi16(high, ones));
    }
  }
}

template <int kRows>
void multiply_panel(const PackedView& weight, int64_t panel, const Int8Rows& x, int32_t row, bool accumulate,
                    float* out, int64_t out_stride) {
  const uint8_t* codes = weight.codes + panel * weight.panel_code_bytes;
  const uint8_t* scales = weight.scales + panel * weight.panel_scale_bytes;
  const bool nibbles = weight.code_kind == CodeKind::kNibble;
  const bool has_min = weight.zero_point == 0;
  const int64_t group_bytes = nibbles ? weight.group * kP / 2 : weight.group * kP;
  const __m256i zero_point = _mm256_set1_epi8(static_cast<char>(weight.zero_point));
  const int64_t groups = weight.cols / weight.group;
  Pair sums[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) sums[r] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
  for (int64_t group = 0; group < groups; ++group, codes += group_bytes) {
    const int64_t at = row * x.group_stride + group;
    const int8_t* quads = x.codes + row * x.code_stride + group * weight.group;
    Dots dots[kRows];
    if (nibbles) {
      dot_nibbles<kRows>(codes, quads, x.code_stride, x.corrections + at, x.group_stride, dots);
    } else {
      dot_bytes<kRows>(codes, weight.group, zero_point, quads, x.code_stride, dots);
    }
    const Scales s = load_scales(weight, scales, group);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Pair scale = times(s.scale, _mm256_broadcast_ss(x.scales + at + r * x.group_stride));
      sums[r].low = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[r].low), scale.low, sums[r].low);
      sums[r].high = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[r].high), scale.high, sums[r].high);
      if (!has_min) continue;
      const __m256 sum = _mm256_broadcast_ss(x.scaled_sums + at + r * x.group_stride);
      sums[r].low = _mm256_fmadd_ps(s.min.low, sum, sums[r].low);
      sums[r].high = _mm256_fmadd_ps(s.min.high, sum, sums[r].high);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    store_outputs(sums[r], weight.rows - panel * kP, accumulate, out + (row + r) * out_stride + panel * kP);
  }
}

void multiply_int8(const PackedView& weight, int64_t first, int64_t last, const Int8Rows& x, bool accumulate,
                   float* out, int64_t out_stride) {
  for (int64_t panel = first; panel < last; ++panel) {
    int32_t row = 0;
    for (; row + 3 <= x.rows; row += 3) multiply_panel<3>(weight, panel, x, row, accumulate, out, out_stride);
    if (row + 2 == x.rows) multiply_panel<2>(weight, panel, x, row, accumulate, out, out_stride);
    if (row + 1 == x.rows) multiply_panel<1>(weight, panel, x, row, accumulate, out, out_stride);
  }
}

}  // namespace

const LinearKernels kLinearAvx2 = {
    .f32 = {.tile_panels = 1, .element_bytes = 4, .unpack = unpack, .multiply = multiply_f32},
    .int8 = {.quantize_row = quantize_row, .multiply = multiply_int8},
};

}  // namespace pkv
#endif  // __x86_64__
