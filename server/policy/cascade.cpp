// Lanes as ranked lists, and the cut through all of them.
#include "server/policy/cascade.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <tuple>
#include <utility>

#include "kernels/check.h"

namespace pkv {

Cascade::Cascade(const CachePlan& plan, const Shape& shape)
    : shape_(shape), past_(std::max(0, shape.tokens - plan.window_tokens)), smallest_lanes_(plan.smallest_lanes) {
  PKV_CHECK(plan.shares_model(), "layers that do not share");
  int64_t free = plan.model_budget;
  for (const int32_t smallest : smallest_lanes_) free -= int64_t{smallest} * shape.kv_heads;
  free_ = static_cast<size_t>(free);
}

uint64_t Cascade::bytes(const CachePlan& plan, const Shape& shape) {
  const uint64_t layer = static_cast<uint64_t>(shape.kv_heads) * static_cast<uint64_t>(shape.tokens);
  const uint64_t most = static_cast<uint64_t>(plan.model_budget) + layer;
  return most * (sizeof(Entry) + sizeof(int32_t) + sizeof(std::tuple<float, int32_t, int32_t>)) +
         2 * layer * sizeof(float) + static_cast<uint64_t>(shape.tokens) * sizeof(int32_t);
}

void Cascade::add_layer(std::vector<float> scores, std::span<const float> mass) {
  for (float& score : scores) {
    if (std::isnan(score)) score = -std::numeric_limits<float>::infinity();
  }
  const auto columns = static_cast<size_t>(shape_.tokens);
  const int32_t window = shape_.tokens - past_;
  const auto sure = static_cast<size_t>(smallest_lanes_[static_cast<size_t>(layers())] - window);
  for (size_t head = 0; head < static_cast<size_t>(shape_.kv_heads); ++head) {
    lanes_.push_back(
        ranked_lane(std::span(scores).subspan(head * columns, columns), mass.subspan(head * columns, columns), sure));
  }
  drop_surplus();
}

Cascade::Lane Cascade::ranked_lane(std::span<const float> scores, std::span<const float> mass, size_t sure) const {
  const auto past = scores.begin() + past_;
  Lane lane{.held = std::vector<int32_t>(static_cast<size_t>(past_)),
            .sure = sure,
            .mass = std::accumulate(mass.begin(), mass.end(), 0.0),
            .window_mass = std::accumulate(mass.begin() + past_, mass.end(), 0.0)};
  std::iota(lane.held.begin(), lane.held.end(), 0);
  // What does not beat the worst that is held, which comes before it in the order of equals, is dropped in any case.
  const auto contenders =
      full_ ? static_cast<size_t>(std::count_if(scores.begin(), past, [&](float score) { return score > worst_; }))
            : static_cast<size_t>(past_);
  const size_t ranked = std::max(contenders, sure);
  std::vector<int32_t> order = lane.held;
  const auto ranks_before = [&](int32_t a, int32_t b) {
    const float first = scores[static_cast<size_t>(a)], second = scores[static_cast<size_t>(b)];
    return first != second ? first > second : a < b;
  };
  const auto end = order.begin() + static_cast<std::ptrdiff_t>(ranked);
  if (end != order.end()) std::nth_element(order.begin(), end, order.end(), ranks_before);
  std::sort(order.begin(), end, ranks_before);
  lane.ranked.reserve(ranked);
  for (size_t rank = 0; rank < ranked; ++rank) {
    const auto column = static_cast<size_t>(order[rank]);
    lane.ranked.push_back({scores[column], mass[column], order[rank]});
  }
  return lane;
}

void Cascade::drop_surplus() {
  std::vector<std::tuple<float, int32_t, int32_t>> others;  // minus score, lane, rank: the best first
  size_t candidates = 0;
  for (const Lane& lane : lanes_) candidates += lane.ranked.size() - lane.sure;
  others.reserve(candidates);
  for (size_t i = 0; i < lanes_.size(); ++i) {
    const std::vector<Entry>& ranked = lanes_[i].ranked;
    for (size_t rank = lanes_[i].sure; rank < ranked.size(); ++rank) {
      others.emplace_back(-ranked[rank].score, static_cast<int32_t>(i), static_cast<int32_t>(rank));
    }
  }
  if (others.size() < free_) return;
  std::nth_element(others.begin(), others.begin() + static_cast<std::ptrdiff_t>(free_), others.end());
  others.resize(free_);
  full_ = true;
  worst_ = std::numeric_limits<float>::infinity();
  std::vector<size_t> counts(lanes_.size(), 0);
  for (const auto& [negated, lane, rank] : others) {
    worst_ = std::min(worst_, -negated);
    ++counts[static_cast<size_t>(lane)];
  }
  for (size_t i = 0; i < lanes_.size(); ++i) {
    lanes_[i].ranked.resize(lanes_[i].sure + counts[i]);
    lanes_[i].ranked.shrink_to_fit();
  }
}

const Cascade::Lane& Cascade::lane(int32_t layer, int32_t kv_head) const {
  return lanes_[static_cast<size_t>(layer) * static_cast<size_t>(shape_.kv_heads) + static_cast<size_t>(kv_head)];
}

std::vector<int32_t> Cascade::counts(int32_t layer) const {
  std::vector<int32_t> counts;
  for (int32_t head = 0; head < shape_.kv_heads; ++head) {
    counts.push_back(static_cast<int32_t>(lane(layer, head).ranked.size()) + shape_.tokens - past_);
  }
  return counts;
}

int32_t Cascade::held(int32_t layer, int32_t kv_head) const {
  return static_cast<int32_t>(lane(layer, kv_head).held.size()) + shape_.tokens - past_;
}

std::vector<int32_t> Cascade::slots_before_window(const Lane& lane) const {
  std::vector<uint8_t> kept(static_cast<size_t>(past_), 0);
  for (const Entry& entry : lane.ranked) kept[static_cast<size_t>(entry.position)] = 1;
  std::vector<int32_t> slots;
  slots.reserve(lane.ranked.size() + static_cast<size_t>(shape_.tokens - past_));
  for (size_t slot = 0; slot < lane.held.size(); ++slot) {
    if (kept[static_cast<size_t>(lane.held[slot])] != 0) slots.push_back(static_cast<int32_t>(slot));
  }
  return slots;
}

std::vector<int32_t> Cascade::kept_slots(int32_t layer, int32_t kv_head) const {
  std::vector<int32_t> slots = slots_before_window(lane(layer, kv_head));
  for (int32_t slot = held(layer, kv_head) - (shape_.tokens - past_); slot < held(layer, kv_head); ++slot) {
    slots.push_back(slot);
  }
  return slots;
}

std::vector<int32_t> Cascade::kept_positions(int32_t layer, int32_t kv_head) const {
  const Lane& of = lane(layer, kv_head);
  std::vector<int32_t> positions = slots_before_window(of);
  for (int32_t& slot : positions) slot = of.held[static_cast<size_t>(slot)];
  for (int32_t position = past_; position < shape_.tokens; ++position) positions.push_back(position);
  return positions;
}

std::vector<float> Cascade::kept_scores(int32_t layer, int32_t kv_head) const {
  std::vector<float> scores(static_cast<size_t>(past_), 0.0f);
  for (const Entry& entry : lane(layer, kv_head).ranked) scores[static_cast<size_t>(entry.position)] = entry.score;
  return scores;
}

void Cascade::set_cut(int32_t layer) {
  for (int32_t head = 0; head < shape_.kv_heads; ++head) {
    Lane& cut = lanes_[static_cast<size_t>(layer * shape_.kv_heads + head)];
    std::vector<int32_t> left = slots_before_window(cut);
    for (int32_t& slot : left) slot = cut.held[static_cast<size_t>(slot)];
    cut.held = std::move(left);
  }
}

double Cascade::recall(int32_t layer, int32_t kv_head) const {
  const Lane& of = lane(layer, kv_head);
  double kept = of.window_mass;
  for (const Entry& entry : of.ranked) kept += entry.mass;
  return kept / of.mass;
}

}  // namespace pkv
