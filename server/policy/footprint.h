// What a request will hold at most, known before it starts: one piece of code for admission, estimate and report.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "server/cache/kv_cache.h"

namespace pkv {

// One set of lanes that a prefill leaves behind.
struct KeptLanes {
  std::span<const int32_t> budgets;  // [layers * kv_heads] entries after the cut
  std::span<const int32_t> limits;   // [layers * kv_heads] entries at the end
  uint64_t state_bytes = 0;          // auxiliary, from the start to the end
};

struct FootprintInput {
  CacheGeometry geometry;
  KvDtype dtype = KvDtype::kF16;
  int32_t prompt_tokens = 0;  // n
  // The lanes that the prompt goes through, and any that are filled from its layers besides (a comparison's).
  KeptLanes own;
  std::vector<KeptLanes> others;
};

// Pages, and allocated + auxiliary bytes of them and of the state.
struct Footprint {
  uint64_t steady_pages = 0;  // after the prompt, growth included
  uint64_t peak_pages = 0;    // at any instant: during prefill what is kept so far plus one full layer; >= steady_pages
  uint64_t steady_bytes = 0;
  uint64_t peak_bytes = 0;
};

Footprint cache_footprint(const FootprintInput& input);

}  // namespace pkv
