// What prompts' 8-bit products multiply: rows and panels of weights quantised by groups, two groups side by side. For
// sources that are compiled for AVX512_VNNI.
//
// With codes c of weights, around their centre, and q of activations, an output is the sum over groups of
//   x scale * w scale * sum(c q) + x scale * sum(q) * w min,    w min: with the centre
// x scales are 15-bit fractions of the row's largest, w scales and minima multiples, of 10 bits at least, of the unit
// that an output has in a chunk of the depth. A group's dot product, shifted to 16 bits, times the fraction is rounded
// to 16 bits: to the step in which the row's group of the widest range is quantised anyway. From there on integers are
// exact; the bounds below keep a chunk's sum in 32 bits.
#pragma once

#include <cstdint>

#include "kernels/cpu/linear/panel_scales.h"

namespace pkv {
namespace {

static_assert(V::kWidth == kPanelOutputs);

constexpr int64_t kDepth = 1024;            // inputs of a chunk: 32 groups of 32, or 64 of 16
constexpr int64_t kLargestMultiple = 1023;  // where a chunk is that deep; in proportion more where it is not
constexpr int64_t kLargestFactor = 32512;   // of a shifted dot product, or of 8 times a sum of 32 codes up to 127
static_assert(2 * kDepth / 32 * kLargestFactor * kLargestMultiple < int64_t{1} << 31);
static_assert(kDepth / 16 * kLargestFactor * kLargestMultiple < int64_t{1} << 31, "groups of 16 have no minimum");
constexpr int32_t kSumFactor = 8;
constexpr int32_t kWeightBytes = 2;

// What codes are taken to lie around.
int32_t centre_of(const PackedView& weight) {
  if (weight.zero_point != 0) return weight.zero_point;
  return weight.code_kind == CodeKind::kNibble ? 8 : 16;  // of five bits
}

// By how much dot products of a group, up to centre * 127 * group, are shifted.
int32_t shift_of(const PackedView& weight) { return __builtin_ctz(centre_of(weight) * weight.group / 256); }

constexpr int64_t kStep = kGemmStep;  // inputs that are quantised together: one pair of groups, or two

// Two groups of a quantised row. Four codes of one and four of the other in turns.
template <int kGroup>
struct RowPair {
  int8_t codes[2 * kGroup];
  int32_t corrections[2];  // takes the weights' centre off dot products, and rounds the shift
  int16_t scales[2];       // in 2^15ths of the row's
  int16_t sums[2];         // of the codes, scaled, times kSumFactor
};

// Two groups of an unpacked panel. Codes of eight outputs, four of one group and four of the other in turns: what
// vpackssdw makes of their dot products are pairs in the order of the outputs.
template <int kGroup>
struct PanelPair {
  uint8_t codes[kGroup / 4][2][64];
  uint32_t scales[kPanelOutputs];  // pairs of int16 in the output's unit
  uint32_t mins[kPanelOutputs];
};

// A chunk of a panel.
template <int kGroup>
struct Panel {
  float units[kPanelOutputs];
  PanelPair<kGroup> pairs[kDepth / kGroup / 2];
};
static_assert(sizeof(Panel<16>) <= kWeightBytes * kPanelOutputs * kDepth);
static_assert(sizeof(Panel<32>) <= kWeightBytes * kPanelOutputs * kDepth);
static_assert(sizeof(float[kPanelOutputs]) + sizeof(PanelPair<16>) * 2 <= kWeightBytes * kPanelOutputs * kStep);

}  // namespace
}  // namespace pkv
