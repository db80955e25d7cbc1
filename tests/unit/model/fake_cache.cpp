// Plans over a cache that is just memory.
#include "tests/unit/model/fake_cache.h"

namespace pkv::test {
namespace {

constexpr int32_t kSlotsPerPage = 5;

}  // namespace

FakeCache::FakeCache(const ModelShape& shape, int32_t sequences, int32_t capacity)
    : shape_(shape),
      page_bytes_(kSlotsPerPage * entry_format(KvDtype::kF32).entry_bytes(shape.head_dim)),
      pages_per_lane_((capacity + kSlotsPerPage - 1) / kSlotsPerPage),
      total_pages_(sequences * shape.layers * shape.kv_heads * pages_per_lane_),
      pool_(static_cast<size_t>(total_pages_) * static_cast<size_t>(page_bytes_)),
      positions_(static_cast<size_t>(total_pages_ * kSlotsPerPage)) {}

StepPlan FakeCache::plan(Phase phase, std::span<const Rows> rows, int32_t first_layer, int32_t layers) {
  StepPlan plan;
  plan.phase = phase;
  plan.first_layer = first_layer;
  plan.lanes_per_layer = static_cast<int32_t>(rows.size()) * shape_.kv_heads;
  plan.lanes.resize(static_cast<size_t>(layers * plan.lanes_per_layer));
  plan.cache = {.pool = pool_.data(),
                .positions = positions_.data(),
                .page_bytes = page_bytes_,
                .position_stride = kSlotsPerPage,
                .head_dim = shape_.head_dim};
  for (const Rows& part : rows) {
    const auto count = static_cast<int32_t>(part.tokens.size());
    plan.spans.push_back({plan.rows(), count, static_cast<int32_t>(plan.spans.size()) * shape_.kv_heads});
    for (int32_t i = 0; i < count; ++i) {
      plan.token_ids.push_back(part.tokens[static_cast<size_t>(i)]);
      plan.positions.push_back(part.begin + i);
      plan.angles.push_back(part.begin + i);
    }
    for (int32_t layer = 0; layer < layers; ++layer) {
      for (int32_t head = 0; head < shape_.kv_heads; ++head) {
        plan.lanes[static_cast<size_t>(layer * plan.lanes_per_layer + plan.spans.back().first_lane + head)] = {
            .first_page = static_cast<int32_t>(plan.page_ids.size()),
            .length = part.begin + count,
            .write_slot = part.begin,
            .visible = part.begin + 1,
            .dtype = KvDtype::kF32};
        const int32_t lane = (part.sequence * shape_.layers + first_layer + layer) * shape_.kv_heads + head;
        for (int32_t page = 0; page < pages_per_lane_; ++page) {
          plan.page_ids.push_back(total_pages_ - 1 - (lane * pages_per_lane_ + page));
        }
      }
    }
  }
  return plan;
}

}  // namespace pkv::test
