// Fetches whole pages and reads entries from them.
#include "server/cache/stored_entries.h"

#include "kernels/reference/unpacked_lane.h"

namespace pkv {

std::vector<float> read_stored(const KvCache& cache, const StoredLane& lane, StoredPart part,
                               std::span<const int32_t> slots) {
  const CacheGeometry& geometry = cache.geometry();
  std::vector<Lane> lanes(static_cast<size_t>(geometry.kv_heads));
  cache.view(lane.sequence, lane.layer, 0, lanes.data());
  const PageLayout layout = geometry.layout(lanes[static_cast<size_t>(lane.kv_head)].dtype);
  const std::span<const int32_t> ids = cache.page_ids(lane.sequence, lane.layer, lane.kv_head);
  const auto page_bytes = static_cast<size_t>(geometry.page_bytes);
  std::byte* pool = cache.base_view().pool;
  std::vector<std::byte> pages(ids.size() * page_bytes);
  std::vector<Fetch> reads;
  for (size_t i = 0; i < ids.size(); ++i) {
    const int64_t words = geometry.page_bytes / static_cast<int64_t>(sizeof(int32_t));
    std::byte* page = pool + static_cast<size_t>(ids[i]) * page_bytes;
    reads.push_back({pages.data() + i * page_bytes, {page, DType::kI32, 1, words, words}});
  }
  cache.backend().fetch(reads);
  const auto dims = static_cast<size_t>(geometry.head_dim);
  std::vector<float> numbers(slots.size() * dims);
  for (size_t i = 0; i < slots.size(); ++i) {
    const int32_t place = slots[i] % layout.slots();
    const std::byte* page = pages.data() + static_cast<size_t>(slots[i] / layout.slots()) * page_bytes;
    (part == StoredPart::kKeys ? load_key : load_value)(layout, page, place, numbers.data() + i * dims);
  }
  return numbers;
}

}  // namespace pkv
