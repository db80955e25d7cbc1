// A lane table for models of any shape.
#pragma once

#include <memory>
#include <random>

#include "server/policy/lane_table.h"

namespace pkv::test {

// 64 layers of 16 KV heads, of which a model uses the first: at every anchor other shares, some none, the largest some
// twenty times the mean.
inline std::shared_ptr<const LaneTable> lane_table() {
  static const auto kTable = [] {
    LaneTable table{.model = "any", .layers = 64, .kv_heads = 16};
    std::mt19937 random(41);
    for (const double keep : {0.03125, 0.125, 0.5}) {
      LaneTable::Anchor anchor{.keep = keep};
      for (int lane = 0; lane < 64 * 16; ++lane) {
        const double share = static_cast<double>(random() % 1000) / 500;
        anchor.shares.push_back(random() % 16 == 0 ? 10 * share : share * share / 2);
      }
      table.anchors.push_back(std::move(anchor));
    }
    return std::make_shared<const LaneTable>(std::move(table));
  }();
  return kTable;
}

}  // namespace pkv::test
