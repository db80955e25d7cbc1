// Shares of a budget for every lane of one model, as a calibration measured them (docs/policies.md, `funnel`), and the
// text file they are kept in.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/policy/policy.h"

namespace pkv {

struct LaneTable {
  // What lanes get of a budget of `keep` entries per token and lane.
  struct Anchor {
    double keep = 0;             // in (0, 1]
    std::vector<double> shares;  // [layers * kv_heads], of the average beside what is always kept; not below 0
  };

  std::string model;  // fingerprint of the model's file (server/model/fingerprint.h)
  int32_t layers = 0;
  int32_t kv_heads = 0;
  std::vector<Anchor> anchors;  // at least one, keep ascending

  // The shares at `keep`: between two anchors linear in log(keep), beyond the ends those of the end.
  std::vector<double> shares(double keep) const;
};

// Entries of every lane [layers * kv_heads] for B = `budget` on average over a text of `tokens`, always < budget <=
// tokens: `always` each, and of the rest in proportion to its share, which counts as a fifth of the mean at least. What
// is beyond `tokens` goes to the other lanes in proportion; rounded by largest remainder, ties to the lower lane. The
// sum is exact. `grid` is at most the table's.
std::vector<int32_t> table_lane_budgets(const LaneTable& table, int32_t budget, int32_t tokens, int32_t always,
                                        const LaneGrid& grid);

// INVALID_ARGUMENT naming the line.
absl::StatusOr<LaneTable> parse_lane_table(std::string_view text);
std::string format_lane_table(const LaneTable& table);
// As parse_lane_table(), naming the file too; NOT_FOUND where it cannot be read.
absl::StatusOr<LaneTable> read_lane_table(const std::string& path);

}  // namespace pkv
