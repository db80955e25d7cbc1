// Which entries are kept where the lanes of all layers share a budget by their scores (CachePlan::shares_model()),
// layer by layer while the prompt is read. Every lane is sure of its smallest_lanes best entries; of all others seen so
// far only the best are held that the budget has room for beside what every lane, read already or not, is sure of. One
// that is dropped is not among the best of some layers, so neither among those of all: what is left at the end is the
// choice among all layers at once. On the host, which learns scores and masses of a layer once, when it is cut.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "server/policy/cache_plan.h"

namespace pkv {

class Cascade {
 public:
  struct Shape {
    int32_t kv_heads = 0;
    int32_t tokens = 0;  // n: of the prompt
  };
  Cascade(const CachePlan& plan, const Shape& shape);
  // What it holds at most.
  static uint64_t bytes(const CachePlan& plan, const Shape& shape);

  // The next layer: scores and masses [kv_heads][n]. Those before the window are ranked, +infinity first; equal scores
  // by layer, KV head and position; NaN counts as -infinity, as in select_top.
  void add_layer(std::vector<float> scores, std::span<const float> mass);
  int32_t layers() const { return static_cast<int32_t>(lanes_.size()) / shape_.kv_heads; }

  // ---- of layers that were added
  // Entries that a layer's lanes keep [kv_heads], of those that the cache has.
  std::vector<int32_t> counts(int32_t layer) const;
  // How many the cache has, by what set_cut() said; of a layer that was not cut yet all n.
  int32_t held(int32_t layer, int32_t kv_head) const;
  // Their slots, ascending, where the cache has its entries ascending by position; their positions, and the scores of
  // those before the window [n - W], 0 where nothing is kept.
  std::vector<int32_t> kept_slots(int32_t layer, int32_t kv_head) const;
  std::vector<int32_t> kept_positions(int32_t layer, int32_t kv_head) const;
  std::vector<float> kept_scores(int32_t layer, int32_t kv_head) const;
  // The cache was cut to that.
  void set_cut(int32_t layer);
  // The kept share of a lane's mass.
  double recall(int32_t layer, int32_t kv_head) const;

 private:
  struct Entry {
    float score = 0;
    float mass = 0;
    int32_t position = 0;
  };
  struct Lane {
    std::vector<Entry> ranked;         // kept ones before the window, the best first
    std::vector<int32_t> held;         // positions before the window that the cache has, ascending
    size_t sure = 0;                   // of `ranked`, the first
    double mass = 0, window_mass = 0;  // of all columns and of the window's
  };
  const Lane& lane(int32_t layer, int32_t kv_head) const;
  Lane ranked_lane(std::span<const float> scores, std::span<const float> mass, size_t sure) const;
  // Where the cache has what the lane keeps before the window, ascending.
  std::vector<int32_t> slots_before_window(const Lane& lane) const;
  // Drops what the budget has no room for.
  void drop_surplus();

  Shape shape_;
  int32_t past_ = 0;  // columns before the window
  std::vector<int32_t> smallest_lanes_;
  size_t free_ = 0;    // entries that no lane is sure of
  bool full_ = false;  // so many are held
  float worst_ = 0;    // and this is the lowest score of them
  std::vector<Lane> lanes_;
};

}  // namespace pkv
