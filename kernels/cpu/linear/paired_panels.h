// Unpacks panels of weights to paired groups.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/linear/paired_groups.h"

namespace pkv {
namespace {

// Codes of four inputs of a group, from its packed ones.
inline I::Type load_quad(const uint8_t* codes, bool nibbles, int32_t quad) {
  if (!nibbles) return I::load(codes + quad * 64);
  const I::Type both = I::load(codes + quad / 2 * 64);
  return (quad % 2 == 0 ? both : I::shift_right<4>(both)) & I::broadcast(0x0f0f0f0f);
}

template <int kGroup>
void unpack_panel(const PackedView& weight, int64_t panel, int64_t k0, int64_t k1, void* tile) {
  auto* const to = static_cast<Panel<kGroup>*>(tile);
  const bool nibbles = weight.code_kind == CodeKind::kNibble;
  const int64_t group_bytes = kGroup * kPanelOutputs / (nibbles ? 2 : 1);
  const uint8_t* codes = weight.codes + panel * weight.panel_code_bytes + k0 / kGroup * group_bytes;
  const uint8_t* scales = weight.scales + panel * weight.panel_scale_bytes;
  const int64_t groups = (k1 - k0) / kGroup;
  const V::Type centre = V::broadcast(static_cast<float>(centre_of(weight)));
  const V::Type min_factor = V::broadcast(1.0f / static_cast<float>(kSumFactor << shift_of(weight)));
  const auto load_group = [&](int64_t group) {
    GroupScales s = load_scales(weight, scales, k0 / kGroup + group);
    s.min[0] = V::fma(s.scale[0], centre, s.min[0]) * min_factor;
    return s;
  };
  V::Type largest = V::broadcast(0.0f);
  for (int64_t group = 0; group < groups; ++group) {
    const GroupScales s = load_group(group);
    largest = V::max(largest, V::max(_mm512_abs_ps(s.scale[0]), _mm512_abs_ps(s.min[0])));
  }
  const int64_t multiple = kLargestMultiple * kDepth / (k1 - k0);
  const V::Type unit = largest * V::broadcast(1.0f / static_cast<float>(multiple < 32767 ? multiple : 32767));
  V::store(to->units, unit);
  const __mmask16 some = _mm512_cmp_ps_mask(unit, V::broadcast(0.0f), _CMP_GT_OQ);
  const V::Type inverse = _mm512_maskz_div_ps(some, V::broadcast(1.0f), unit);
  const auto pair_up = [](I::Type first, I::Type second) {
    return _mm512_mask_blend_epi16(0xaaaaaaaa, first, _mm512_slli_epi32(second, 16));
  };
  for (int64_t group = 0; group < groups; group += 2, codes += 2 * group_bytes) {
    PanelPair<kGroup>& pair = to->pairs[group / 2];
    const bool both = group + 1 < groups;  // the last of an odd number has none beside it
    const GroupScales first = load_group(group), second = both ? load_group(group + 1) : GroupScales{};
    const auto in_units = [&](V::Type value) { return V::to_int(value * inverse); };
    _mm512_storeu_si512(pair.scales, pair_up(in_units(first.scale[0]), in_units(second.scale[0])));
    _mm512_storeu_si512(pair.mins, pair_up(in_units(first.min[0]), in_units(second.min[0])));
    for (int32_t quad = 0; quad < kGroup / 4; ++quad) {
      const I::Type a = load_quad(codes, nibbles, quad);
      const I::Type b = both ? load_quad(codes + group_bytes, nibbles, quad) : I::broadcast(0);
      _mm512_storeu_si512(pair.codes[quad][0], _mm512_unpacklo_epi32(a, b));
      _mm512_storeu_si512(pair.codes[quad][1], _mm512_unpackhi_epi32(a, b));
    }
  }
}

void unpack(const PackedView& weight, int64_t panel, int64_t k0, int64_t k1, void* tile, int32_t /*slot*/) {
  weight.group == 16 ? unpack_panel<16>(weight, panel, k0, k1, tile) : unpack_panel<32>(weight, panel, k0, k1, tile);
}

}  // namespace
}  // namespace pkv
