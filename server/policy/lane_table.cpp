// Interpolation and division by a table.
#include "server/policy/lane_table.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/check.h"
#include "server/policy/budget.h"

namespace pkv {
namespace {

// Every lane has at least so much of the mean share: calibration has seen some texts only.
constexpr double kLeastShare = 0.2;
// Shares as integers: budgets are exact from here on.
constexpr double kShareUnits = 1099511627776.0;  // 2^40

void divide_by_mean(std::vector<double>& shares) {
  const double mean = std::accumulate(shares.begin(), shares.end(), 0.0) / static_cast<double>(shares.size());
  for (double& share : shares) share = mean > 0 ? share / mean : 1.0;
}

}  // namespace

std::vector<double> LaneTable::shares(double keep) const {
  const auto above = std::find_if(anchors.begin(), anchors.end(), [&](const Anchor& a) { return a.keep >= keep; });
  if (above == anchors.end()) return anchors.back().shares;
  if (above == anchors.begin()) return above->shares;
  const Anchor &low = *(above - 1), &high = *above;
  const double part = std::log(keep / low.keep) / std::log(high.keep / low.keep);
  std::vector<double> between;
  for (size_t lane = 0; lane < low.shares.size(); ++lane) {
    between.push_back(low.shares[lane] + part * (high.shares[lane] - low.shares[lane]));
  }
  return between;
}

std::vector<int32_t> table_lane_budgets(const LaneTable& table, int32_t budget, int32_t tokens, int32_t always,
                                        const LaneGrid& grid) {
  PKV_CHECK(grid.layers <= table.layers && grid.kv_heads <= table.kv_heads, "a lane table of another model");
  const std::vector<double> of_table = table.shares(static_cast<double>(budget) / tokens);
  std::vector<double> shares;
  for (int32_t layer = 0; layer < grid.layers; ++layer) {
    const auto first = of_table.begin() + std::ptrdiff_t{layer} * table.kv_heads;
    shares.insert(shares.end(), first, first + grid.kv_heads);
  }
  divide_by_mean(shares);
  for (double& share : shares) share = std::max(share, kLeastShare);
  divide_by_mean(shares);
  std::vector<int64_t> weights;
  for (const double share : shares) weights.push_back(std::llround(share * kShareUnits));
  const int64_t beside = int64_t{budget - always} * static_cast<int64_t>(grid.lanes());
  std::vector<int32_t> lanes;
  for (const int64_t entries : divide_in_proportion(weights, beside, tokens - always)) {
    lanes.push_back(always + static_cast<int32_t>(entries));
  }
  return lanes;
}

}  // namespace pkv
