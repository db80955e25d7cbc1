// Plans over a cache that is just memory.
#include "tests/unit/model/fake_cache.h"

namespace pkv::test {
namespace {

constexpr int32_t kSlotsPerPage = 5;

}  // namespace

FakeCache::FakeCache(Backend& backend, const ModelShape& shape, int32_t sequences, int32_t capacity)
    : backend_(backend),
      shape_(shape),
      page_bytes_(kSlotsPerPage * entry_format(KvDtype::kF32).entry_bytes(shape.head_dim)),
      pages_per_lane_((capacity + kSlotsPerPage - 1) / kSlotsPerPage),
      total_pages_(sequences * shape.layers * shape.kv_heads * pages_per_lane_) {
  const auto pages = static_cast<size_t>(total_pages_);
  pool_ = {backend, std::vector<int32_t>(pages * static_cast<size_t>(page_bytes_) / sizeof(int32_t))};
  positions_ = {backend, std::vector<int32_t>(pages * kSlotsPerPage)};
  std::vector<int32_t> page_ids(pages);
  for (size_t i = 0; i < pages; ++i) page_ids[i] = total_pages_ - 1 - static_cast<int32_t>(i);
  page_ids_ = {backend, page_ids};
}

std::vector<int32_t> FakeCache::pool() {
  std::vector<int32_t> words(static_cast<size_t>(pool_.size()));
  backend_.fetch({words.data(), {pool_.data(), DType::kI32, 1, pool_.size(), pool_.size()}});
  return words;
}

const StepPlan& FakeCache::plan(Phase phase, std::span<const Rows> rows, int32_t first_layer, int32_t layers) {
  std::vector<int32_t> token_ids, positions;
  std::vector<RowSpan> spans;
  std::vector<std::vector<Lane>> layer_lanes(static_cast<size_t>(layers));
  for (const Rows& part : rows) {
    const auto count = static_cast<int32_t>(part.tokens.size());
    spans.push_back(
        {static_cast<int32_t>(positions.size()), count, static_cast<int32_t>(spans.size()) * shape_.kv_heads});
    for (int32_t i = 0; i < count; ++i) {
      token_ids.push_back(part.tokens[static_cast<size_t>(i)]);
      positions.push_back(part.begin + i);
    }
    for (int32_t layer = 0; layer < layers; ++layer) {
      for (int32_t head = 0; head < shape_.kv_heads; ++head) {
        const int32_t lane = (part.sequence * shape_.layers + first_layer + layer) * shape_.kv_heads + head;
        layer_lanes[static_cast<size_t>(layer)].push_back({.first_page = lane * pages_per_lane_,
                                                           .length = part.begin + count,
                                                           .write_slot = part.begin,
                                                           .visible = part.begin + 1,
                                                           .dtype = KvDtype::kF32});
      }
    }
  }
  std::vector<Lane> lanes;
  for (const std::vector<Lane>& layer : layer_lanes) lanes.insert(lanes.end(), layer.begin(), layer.end());
  token_ids_ = {backend_, token_ids};
  row_positions_ = {backend_, positions};
  spans_ = {backend_, spans};
  lanes_ = {backend_, lanes};
  plan_ = {.phase = phase,
           .rows = row_positions_.size(),
           .token_ids = token_ids_.data(),
           .positions = row_positions_.data(),
           .angles = row_positions_.data(),
           .spans = row_spans(spans_),
           .first_layer = first_layer,
           .cache = {.pool = reinterpret_cast<std::byte*>(pool_.data()),
                     .positions = positions_.data(),
                     .page_ids = page_ids_.data(),
                     .lanes = lanes_.data(),
                     .lane_count = static_cast<int32_t>(rows.size()) * shape_.kv_heads,
                     .page_bytes = page_bytes_,
                     .position_stride = kSlotsPerPage,
                     .head_dim = shape_.head_dim}};
  return plan_;
}

}  // namespace pkv::test
