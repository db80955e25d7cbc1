// What a request's cache came to, for its reply.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "server/engine/request_result.h"
#include "server/policy/cache_plan.h"

namespace pkv {

// Adds what follows from what was measured: logical tokens, full bytes, bytes and their integrals, entries evicted
// while generating, workspace, and the outcome of every layer.
CacheReport make_report(const PolicySpec& spec, const CachePlan& plan, int32_t prompt_tokens, CacheReport measured);

// Positions of all lanes ascend from then on, those of comparisons too.
void sort_positions(RequestResult& result);

// Numbers of a result that its reply lists one by one: positions, and those of comparisons with their tokens.
size_t listed_numbers(const RequestResult& result);

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
