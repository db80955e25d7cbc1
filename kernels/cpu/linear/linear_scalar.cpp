// Matrix products in portable C++, and the table's fallback for whatever a CPU lacks.
#include <cmath>
#include <cstring>

#include "kernels/cpu/kernel_table.h"
#include "kernels/quant.h"

namespace pkv {
namespace {

constexpr int32_t kP = kPanelOutputs;

void load_halves(const uint8_t* from, float* out) {
  uint16_t halves[kP];
  std::memcpy(halves, from, sizeof(halves));
  for (int32_t o = 0; o < kP; ++o) out[o] = half_to_float(halves[o]);
}

// weight = scale * code + min for the 16 outputs of a group.
void load_scales(const PackedView& weight, const uint8_t* scales, int64_t group, float* scale, float* min) {
  if (weight.scale_kind == ScaleKind::kHalfMin) {
    load_halves(scales + group * 64, scale);
    load_halves(scales + group * 64 + 32, min);
    return;
  }
  if (weight.scale_kind == ScaleKind::kSuperMin) {
    const uint8_t* super = scales + group / 8 * 320;
    const uint8_t* bytes = super + 64 + group % 8 * kP;
    load_halves(super, scale);
    load_halves(super + 32, min);
    for (int32_t o = 0; o < kP; ++o) {
      scale[o] *= bytes[o];
      min[o] *= -static_cast<float>(bytes[8 * kP + o]);
    }
    return;
  }
  if (weight.scale_kind == ScaleKind::kHalf) {
    load_halves(scales + group * 32, scale);
  } else {
    const uint8_t* super = scales + group / 16 * 288;
    load_halves(super, scale);
    for (int32_t o = 0; o < kP; ++o) scale[o] *= static_cast<int8_t>(super[32 + group % 16 * kP + o]);
  }
  for (int32_t o = 0; o < kP; ++o) min[o] = -static_cast<float>(weight.zero_point) * scale[o];
}

// Codes of four consecutive inputs of the 16 outputs: [16][4].
void load_quad(const PackedView& weight, const uint8_t* panel, int64_t quad, uint8_t* codes) {
  if (weight.code_kind == CodeKind::kByte) {
    std::memcpy(codes, panel + quad * 64, 64);
    return;
  }
  const uint8_t* bytes = panel + quad / 2 * 64;
  const int32_t shift = quad % 2 == 0 ? 0 : 4;
  for (int32_t i = 0; i < 64; ++i) codes[i] = (bytes[i] >> shift) & 15;
}

void unpack_floats(const PackedView& weight, const uint8_t* panel, int64_t k0, int64_t k1, float* to) {
  for (int64_t i = k0 * kP; i < k1 * kP; ++i, ++to) {
    if (weight.code_kind == CodeKind::kF32) {
      std::memcpy(to, panel + 4 * i, 4);
      continue;
    }
    uint16_t bits;
    std::memcpy(&bits, panel + 2 * i, 2);
    *to = weight.code_kind == CodeKind::kF16 ? half_to_float(bits) : bfloat16_to_float(bits);
  }
}

void unpack(const PackedView& weight, int64_t panel, int64_t k0, int64_t k1, void* tile, int32_t) {
  auto* to = static_cast<float*>(tile);
  const uint8_t* codes = weight.codes + panel * weight.panel_code_bytes;
  if (weight.scale_kind == ScaleKind::kNone) return unpack_floats(weight, codes, k0, k1, to);
  const uint8_t* scales = weight.scales + panel * weight.panel_scale_bytes;
  float scale[kP], min[kP];
  uint8_t quad[4 * kP];
  for (int64_t k = k0; k < k1; k += 4) {
    if (k % weight.group == 0) load_scales(weight, scales, k / weight.group, scale, min);
    load_quad(weight, codes, k / 4, quad);
    for (int32_t t = 0; t < 4; ++t) {
      for (int32_t o = 0; o < kP; ++o) *to++ = scale[o] * quad[4 * o + t] + min[o];
    }
  }
}

void multiply_f32(const GemmTile& tile) {
  for (int32_t r = 0; r < tile.rows; ++r) {
    const float* a = static_cast<const float*>(tile.a) + r * tile.a_stride;
    const auto* b = static_cast<const float*>(tile.b);
    float* partial = tile.partial + r * kP;
    float sums[kP] = {};
    if (!tile.first) std::memcpy(sums, partial, sizeof(sums));
    for (int64_t k = 0; k < tile.depth; ++k, b += kP) {
      for (int32_t o = 0; o < kP; ++o) sums[o] += a[k] * b[o];
    }
    if (!tile.last) {
      std::memcpy(partial, sums, sizeof(sums));
      continue;
    }
    float* out = tile.out + r * tile.out_stride;
    for (int32_t o = 0; o < tile.cols; ++o) out[o] = tile.accumulate ? out[o] + sums[o] : sums[o];
  }
}

void quantize_row(const float* x, const PackedView& weight, int32_t row, const Int8Rows& to) {
  int8_t* codes = to.codes + row * to.code_stride;
  for (int64_t group = 0; group < weight.cols / weight.group; ++group) {
    const float* from = x + group * weight.group;
    float largest = 0;
    for (int32_t i = 0; i < weight.group; ++i) largest = std::fmax(largest, std::fabs(from[i]));
    const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
    int32_t sum = 0;
    for (int32_t i = 0; i < weight.group; ++i) {
      const auto code = static_cast<int8_t>(std::lrintf(from[i] * inverse));
      codes[group * weight.group + i] = code;
      sum += code;
    }
    const int64_t at = row * to.group_stride + group;
    to.scales[at] = largest / 127.0f;
    to.scaled_sums[at] = to.scales[at] * static_cast<float>(sum);
    to.corrections[at] = -weight.zero_point * sum;
  }
}

// The dot products of one row with the 16 outputs of a panel.
void dot_int8(const PackedView& weight, int64_t panel, const Int8Rows& x, int32_t row, float* sums) {
  const uint8_t* codes = weight.codes + panel * weight.panel_code_bytes;
  const uint8_t* scales = weight.scales + panel * weight.panel_scale_bytes;
  const bool has_min = weight.zero_point == 0;
  float scale[kP], min[kP];
  uint8_t quad[4 * kP];
  for (int32_t o = 0; o < kP; ++o) sums[o] = 0;
  for (int64_t group = 0; group < weight.cols / weight.group; ++group) {
    const int64_t at = row * x.group_stride + group;
    int32_t dots[kP];
    for (int32_t o = 0; o < kP; ++o) dots[o] = x.corrections[at];
    for (int64_t k = group * weight.group; k < (group + 1) * weight.group; k += 4) {
      load_quad(weight, codes, k / 4, quad);
      const int8_t* a = x.codes + row * x.code_stride + k;
      for (int32_t o = 0; o < kP; ++o) {
        for (int32_t t = 0; t < 4; ++t) dots[o] += quad[4 * o + t] * a[t];
      }
    }
    load_scales(weight, scales, group, scale, min);
    for (int32_t o = 0; o < kP; ++o) {
      sums[o] += static_cast<float>(dots[o]) * (scale[o] * x.scales[at]);
      if (has_min) sums[o] += min[o] * x.scaled_sums[at];
    }
  }
}

void multiply_int8(const PackedView& weight, int64_t first, int64_t last, const Int8Rows& x, bool accumulate,
                   float* out, int64_t out_stride) {
  for (int64_t panel = first; panel < last; ++panel) {
    const int64_t left = weight.rows - panel * kP;
    for (int32_t row = 0; row < x.rows; ++row) {
      float sums[kP];
      dot_int8(weight, panel, x, row, sums);
      float* to = out + row * out_stride + panel * kP;
      for (int64_t o = 0; o < kP && o < left; ++o) to[o] = accumulate ? to[o] + sums[o] : sums[o];
    }
  }
}

}  // namespace

const LinearKernels kLinearScalar = {
    .f32 = {.tile_panels = 1, .element_bytes = 4, .unpack = unpack, .multiply = multiply_f32},
    .int8 = {.quantize_row = quantize_row, .multiply = multiply_int8},
};

}  // namespace pkv
