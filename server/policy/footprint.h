// What a request will hold at most, known before it starts: one piece of code for admission, estimate and report.
#pragma once

#include <cstdint>
#include <span>

#include "server/cache/kv_cache.h"

namespace pkv {

struct FootprintInput {
  CacheGeometry geometry;
  KvDtype dtype = KvDtype::kF16;
  int32_t prompt_tokens = 0;              // n
  int32_t max_tokens = 0;                 // generated at most; the last one is never written
  std::span<const int32_t> lane_budgets;  // [layers * kv_heads] entries kept from the cut on
};

// Pages, and allocated + auxiliary bytes of them.
struct Footprint {
  uint64_t steady_pages = 0;  // after the prompt, decode growth to max_tokens included
  uint64_t peak_pages = 0;    // at any instant: during prefill what is kept so far plus one full layer; >= steady_pages
  uint64_t steady_bytes = 0;
  uint64_t peak_bytes = 0;
};

Footprint cache_footprint(const FootprintInput& input);

}  // namespace pkv
