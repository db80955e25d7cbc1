// Some slots of a lane copied one behind the other to a page of their own, as they are, for kernels that take slots in
// a row.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/cpu/attention/attention_kernels.h"

namespace pkv {

constexpr int32_t kGatheredSlots = 64;  // at most
static_assert(kGatheredSlots % kMaxPanelCols == 0 && kTileSlots % kGatheredSlots == 0);

// Room for them in any format, with what kernels may read beyond the last.
constexpr int64_t gathered_bytes(int32_t head_dim) {
  return int64_t{kGatheredSlots} * entry_format(KvDtype::kF32).entry_bytes(head_dim) + 64;
}

// A lane of slots.size() entries in `room`, which has to stay.
LanePages gather_slots(const LanePages& pages, std::span<const int32_t> slots, std::byte* room);

}  // namespace pkv
