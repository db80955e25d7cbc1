// What the cache keeps of one open sequence.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "server/cache/kv_cache.h"

namespace pkv {

struct CachedLane {
  bool whole = false;  // still of a layer that is being read: in the prompt's format
  int32_t length = 0;  // entries
  int32_t pages = 0;
  int32_t first = 0;  // place of its first page id
  int32_t limit = 0;  // entries at most
  int32_t own = 0;    // where its own range begins; `first` where it does not hold a whole layer's entries
};

struct CachedSequence {
  CachedSequence(const PageLayout& kept, const PageLayout& prompt) : layout(kept), prompt_layout(prompt) {}

  PageLayout layout;              // of lanes from the cut on
  PageLayout prompt_layout;       // until then
  std::vector<CachedLane> lanes;  // [layers * kv_heads]
  int32_t first = 0;              // its range of the page table
  int32_t places = 0;
  // The end of that range is for the lanes of one layer that have more entries than they may keep.
  int32_t layer_pages = 0;  // places of each
  int32_t whole_lanes = 0;  // that are there
  size_t whole_layer = 0;   // whose they are
  CacheBytes bytes;
  uint64_t added_auxiliary = 0;  // by add_auxiliary()

  const PageLayout& layout_of(const CachedLane& lane) const { return lane.whole ? prompt_layout : layout; }
  int32_t layer_first(size_t kv_head, size_t kv_heads) const {
    return first + places - static_cast<int32_t>(kv_heads - kv_head) * layer_pages;
  }
};

}  // namespace pkv
