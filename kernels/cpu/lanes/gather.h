// What Backend::gather() does to one lane.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/entry_format.h"

namespace pkv {

struct GatherJob {
  const KvView& kv;
  const Lane& from;
  const Lane& to;
  std::span<const int32_t> kept;
  std::byte* staging = nullptr;  // room for all entries, or nullptr: stream
  int32_t* positions = nullptr;  // room for all positions

  // Both lanes lie in the same pages.
  bool in_place() const { return from.first_page == to.first_page; }

  // The positions of what is kept, all of them read before one is written.
  void move_positions() const {
    const auto count = static_cast<int32_t>(kept.size());
    const int32_t from_slots = page_layout(kv, from).slots(), to_slots = page_layout(kv, to).slots();
    for (int32_t i = 0; i < count; ++i) {
      const int32_t slot = kept[static_cast<size_t>(i)];
      positions[i] = kv.page_positions(from, slot / from_slots)[slot % from_slots];
    }
    for (int32_t i = 0; i < count; ++i) kv.page_positions(to, i / to_slots)[i % to_slots] = positions[i];
  }
};

}  // namespace pkv
