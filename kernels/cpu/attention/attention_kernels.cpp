// The table of attention kernels of one instruction set: this file is compiled once for each (CMakeLists.txt).
#include "kernels/cpu/attention/attention_kernels.h"

#include "kernels/cpu/attention/decode_kernels.h"
#include "kernels/cpu/attention/factor_norms.h"
#include "kernels/cpu/attention/panel_kernels.h"

namespace pkv {
namespace {

void to_half(const float* from, uint16_t* to, int64_t count) {
  int64_t i = 0;
  for (; i + V::kWidth <= count; i += V::kWidth) V::to_half(to + i, V::load(from + i));
  for (; i < count; ++i) to[i] = half_of(from[i]);
}

void to_bfloat16(const float* from, Bfloat16* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    __builtin_memcpy(&bits, from + i, sizeof(bits));
    const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    to[i].bits = static_cast<uint16_t>(nan ? bits >> 16 | 0x40u : rounded);
  }
}

template <typename T>
void to_float(const T* from, float* to, int64_t count) {
  int64_t i = 0;
  for (; i + V::kWidth <= count; i += V::kWidth) V::store(to + i, V::load(from + i));
  const auto rest = static_cast<int32_t>(count - i);
  if (rest > 0) V::store_range(to + i, V::load_first(from + i, rest), 0, rest);
}

}  // namespace

template <>
constinit const AttentionKernels PathTable<AttentionKernels, kIsa>::kernels = {
    .panel = {.rows = kPanelRows,
              .element_bytes = 4,
              .pack_queries = pack_queries,
              .pack_keys = pack_keys,
              .pack_values = pack_values,
              .attend = attend_panel,
              .lse = lse_panel<kPanelRows, score_panel>,
              .mass = mass_panel<kPanelRows, score_panel>,
              .add_weights = add_weights<kPanelRows>},
    .decode_tile = decode_tile,
    .combine_tiles = combine_tiles,
    .to_half = to_half,
    .pack_factor = pack_factor,
    .factor_norms = factor_norms,
    .to_bfloat16 = to_bfloat16,
    .half_to_float = to_float<uint16_t>,
    .bfloat16_to_float = to_float<Bfloat16>};

}  // namespace pkv
