// What a request's cache came to, for its reply.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "server/engine/request_result.h"
#include "server/policy/cache_plan.h"

namespace pkv {

struct ReportInput {
  const PolicySpec& spec;
  const CachePlan& plan;
  int32_t prompt_tokens = 0;
  int32_t logical_tokens = 0;         // written so far
  uint64_t full_bytes_per_token = 0;  // of f16 entries
  CacheBytes bytes;
  ByteSeconds byte_seconds;
  uint64_t evicted_while_generating = 0;
  uint64_t workspace_bytes = 0;
  std::vector<LayerOutcome> layers;
};

CacheReport make_report(ReportInput input);

// Entries of the prompt that the cut took away.
uint64_t evicted_from_prompt(const std::vector<LayerOutcome>& layers, int32_t prompt_tokens);

// Shares of the observed attention, one per lane; empty: nothing was observed. Of a lane that was never cut everything
// was kept, and so its share is 1.
std::vector<double> lane_recall(const LayerOutcome& layer, bool compressed);
std::vector<double> lane_recall(const CacheReport& report);  // of all layers; never cut and without layers: 1

// Of a whole report: the mean over its lanes, and what was held at the end as a share of a full cache.
std::optional<double> mean_recall(const CacheReport& report);
double kept_share(const CacheReport& report);

}  // namespace pkv
