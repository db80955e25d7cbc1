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

void to_float(const uint16_t* from, float* to, int64_t count) {
  int64_t i = 0;
  for (; i + V::kWidth <= count; i += V::kWidth) V::store(to + i, V::load(from + i));
  const auto rest = static_cast<int32_t>(count - i);
  if (rest > 0) V::store_range(to + i, V::load_first(from + i, rest), 0, rest);
}

}  // namespace

template <>
constinit const AttentionKernels PathTable<AttentionKernels, kIsa>::kernels = {.panel = {.rows = kPanelRows,
                                                                                         .element_bytes = 4,
                                                                                         .pack_queries = pack_queries,
                                                                                         .pack_keys = pack_keys,
                                                                                         .pack_values = pack_values,
                                                                                         .attend = attend_panel},
                                                                               .decode_tile = decode_tile,
                                                                               .combine_tiles = combine_tiles,
                                                                               .lse_panel = lse_panel,
                                                                               .mass_panel = mass_panel,
                                                                               .to_half = to_half,
                                                                               .pack_factor = pack_factor,
                                                                               .factor_norms = factor_norms,
                                                                               .to_float = to_float};

}  // namespace pkv
