// KvCache: hands pages to lanes and takes them back, and keeps the byte counts of every sequence and of the whole in
// step with each change.
#include "server/cache/kv_cache.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace pkv {
namespace {

constexpr int32_t kPageAlignment = 64;  // bytes: every page begins on a cache line

absl::Status check_geometry(const CacheGeometry& geometry) {
  if (geometry.layers < 1 || geometry.kv_heads < 1 || geometry.head_dim < 1) {
    return absl::InvalidArgumentError("a cache needs at least one layer, one KV head and a head size of one");
  }
  if (geometry.page_bytes % kPageAlignment != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("pages of ", geometry.page_bytes, " bytes: must be a multiple of ", kPageAlignment));
  }
  for (const EntryFormat& format : kEntryFormats.rows) {
    const PageLayout layout(format, geometry.head_dim, geometry.page_bytes);
    if (layout.slots() >= 1) continue;
    return absl::InvalidArgumentError(absl::StrCat("a page of ", geometry.page_bytes, " bytes holds no entry: one of ",
                                                   format.name, " at head size ", geometry.head_dim, " has ",
                                                   layout.entry_bytes(), " bytes"));
  }
  return absl::OkStatus();
}

// The stride of the side array of positions.
int32_t position_stride(const CacheGeometry& geometry) { return densest_slots(geometry.head_dim, geometry.page_bytes); }

void add(CacheBytes& bytes, int64_t held, int64_t allocated, int64_t auxiliary) {
  bytes.held += static_cast<uint64_t>(held);  // modulo 2^64, so negative changes subtract
  bytes.allocated += static_cast<uint64_t>(allocated);
  bytes.auxiliary += static_cast<uint64_t>(auxiliary);
  bytes.peak = std::max(bytes.peak, bytes.allocated + bytes.auxiliary);
}

}  // namespace

absl::StatusOr<std::unique_ptr<KvCache>> KvCache::create(Backend& backend, const CacheGeometry& geometry,
                                                         uint64_t pool_bytes) {
  PKV_RETURN_IF_ERROR(check_geometry(geometry));
  const uint64_t pages = pool_bytes / static_cast<uint64_t>(geometry.page_bytes);
  if (pages < 1 || pages > static_cast<uint64_t>(std::numeric_limits<int32_t>::max())) {
    return absl::InvalidArgumentError(
        absl::StrCat("a pool of ", pool_bytes, " bytes has ", pages, " pages; 1 to 2147483647 are possible"));
  }
  std::unique_ptr<KvCache> cache(new KvCache(backend, geometry, static_cast<int32_t>(pages)));
  PKV_ASSIGN_OR_RETURN(auto memory, backend.allocate_lazy(pages * static_cast<uint64_t>(geometry.page_bytes)));
  PKV_ASSIGN_OR_RETURN(auto positions, backend.allocate_lazy(pages * static_cast<uint64_t>(position_stride(geometry)) *
                                                             sizeof(int32_t)));
  cache->memory_ = std::move(memory);
  cache->positions_ = std::move(positions);
  return cache;
}

KvCache::KvCache(Backend& backend, const CacheGeometry& geometry, int32_t pages)
    : geometry_(geometry), backend_(backend), pool_(pages) {}

SequenceId KvCache::open(KvDtype dtype) {
  const SequenceId id = next_id_++;
  SequenceState& opened = sequences_[id];
  opened.dtype = dtype;
  opened.lanes.resize(static_cast<size_t>(geometry_.layers) * static_cast<size_t>(geometry_.kv_heads));
  return id;
}

void KvCache::close(SequenceId sequence) {
  SequenceState& closed = state(sequence);
  int64_t entries = 0, pages = 0;
  for (LaneState& lane : closed.lanes) {
    pool_.give_back(lane.pages);
    entries += lane.length;
    pages += static_cast<int64_t>(lane.pages.size());
  }
  account(closed, -entries, -pages);
  total_.auxiliary -= closed.added_auxiliary;
  sequences_.erase(sequence);
}

absl::Status KvCache::append_slots(SequenceId sequence, int32_t layer, int32_t count) {
  PKV_CHECK(count >= 0, "a negative number of slots");
  SequenceState& grown = state(sequence);
  const PageLayout layout = geometry_.layout(grown.dtype);
  const auto pages_needed = [&](const LaneState& lane) {
    return layout.pages_for(lane.length + count) - static_cast<int32_t>(lane.pages.size());
  };

  int32_t pages = 0;
  for (int32_t head = 0; head < geometry_.kv_heads; ++head) pages += pages_needed(grown.lanes[lane_index(layer, head)]);
  std::vector<int32_t> taken;
  taken.reserve(static_cast<size_t>(pages));
  if (!pool_.take(pages, taken)) return no_pages(pages, count);
  auto next = taken.begin();
  for (int32_t head = 0; head < geometry_.kv_heads; ++head) {
    LaneState& target = grown.lanes[lane_index(layer, head)];
    const auto end = next + pages_needed(target);
    target.pages.insert(target.pages.end(), next, end);
    target.length += count;
    next = end;
  }
  account(grown, static_cast<int64_t>(count) * geometry_.kv_heads, pages);
  return absl::OkStatus();
}

absl::Status KvCache::append_slots(SequenceId sequence, int32_t layer, int32_t kv_head, int32_t count) {
  PKV_CHECK(count >= 0, "a negative number of slots");
  SequenceState& grown = state(sequence);
  LaneState& target = grown.lanes[lane_index(layer, kv_head)];
  const int32_t pages =
      geometry_.layout(grown.dtype).pages_for(target.length + count) - static_cast<int32_t>(target.pages.size());
  if (!pool_.take(pages, target.pages)) return no_pages(pages, count);
  target.length += count;
  account(grown, count, pages);
  return absl::OkStatus();
}

absl::Status KvCache::place_token(SequenceId sequence, int32_t layer, std::span<const int32_t> slots) {
  PKV_CHECK(slots.size() == static_cast<size_t>(geometry_.kv_heads), "one slot for each KV head");
  int32_t pages = 0;
  for (int32_t head = 0; head < geometry_.kv_heads; ++head) {
    const LaneState& target = state(sequence).lanes[lane_index(layer, head)];
    const int32_t slot = slots[static_cast<size_t>(head)];
    PKV_CHECK(slot >= 0 && slot <= target.length, "a token is placed beyond its lane");
    const bool grows = slot == target.length;
    pages += grows && slot % geometry_.layout(dtype(sequence)).slots() == 0 ? 1 : 0;
  }
  if (pages > pool_.free()) return no_pages(pages, 1);
  for (int32_t head = 0; head < geometry_.kv_heads; ++head) {
    if (slots[static_cast<size_t>(head)] < length(sequence, layer, head)) continue;
    const absl::Status grown = append_slots(sequence, layer, head, 1);
    PKV_CHECK(grown.ok(), "the pages were counted");
  }
  return absl::OkStatus();
}

Lane KvCache::lane_of(const SequenceState& viewed, const LaneState& source, std::vector<int32_t>& page_ids) const {
  const Lane lane{.first_page = static_cast<int32_t>(page_ids.size()), .length = source.length, .dtype = viewed.dtype};
  page_ids.insert(page_ids.end(), source.pages.begin(), source.pages.end());
  return lane;
}

void KvCache::view(SequenceId sequence, int32_t layer, int32_t rows, std::vector<Lane>& lanes,
                   std::vector<int32_t>& page_ids) const {
  const SequenceState& viewed = state(sequence);
  for (int32_t head = 0; head < geometry_.kv_heads; ++head) {
    const LaneState& source = viewed.lanes[lane_index(layer, head)];
    PKV_CHECK(rows >= 0 && rows <= source.length, "a step writes more entries than the lane has");
    Lane lane = lane_of(viewed, source, page_ids);
    lane.write_slot = source.length - rows;
    lane.visible = lane.write_slot + 1;
    lanes.push_back(lane);
  }
}

void KvCache::view_token(SequenceId sequence, int32_t layer, std::span<const int32_t> slots, std::vector<Lane>& lanes,
                         std::vector<int32_t>& page_ids) const {
  const SequenceState& viewed = state(sequence);
  for (int32_t head = 0; head < geometry_.kv_heads; ++head) {
    Lane lane = lane_of(viewed, viewed.lanes[lane_index(layer, head)], page_ids);
    lane.write_slot = slots[static_cast<size_t>(head)];
    lane.visible = lane.length;
    lanes.push_back(lane);
  }
}

void KvCache::shrink(SequenceId sequence, int32_t layer, int32_t kv_head, int32_t length) {
  SequenceState& shrunk = state(sequence);
  LaneState& target = shrunk.lanes[lane_index(layer, kv_head)];
  PKV_CHECK(length >= 0 && length <= target.length, "a lane is cut to more entries than it has");
  const auto pages = static_cast<size_t>(geometry_.layout(shrunk.dtype).pages_for(length));
  const std::span<const int32_t> surplus = std::span(target.pages).subspan(pages);
  pool_.give_back(surplus);
  account(shrunk, length - target.length, -static_cast<int64_t>(surplus.size()));
  target.pages.resize(pages);
  target.length = length;
}

void KvCache::add_auxiliary(SequenceId sequence, uint64_t bytes) {
  SequenceState& changed = state(sequence);
  changed.added_auxiliary += bytes;
  add(changed.bytes, 0, 0, static_cast<int64_t>(bytes));
  add(total_, 0, 0, static_cast<int64_t>(bytes));
}

KvDtype KvCache::dtype(SequenceId sequence) const { return state(sequence).dtype; }

int32_t KvCache::length(SequenceId sequence, int32_t layer, int32_t kv_head) const {
  return state(sequence).lanes[lane_index(layer, kv_head)].length;
}

std::vector<int32_t> KvCache::positions(SequenceId sequence, int32_t layer, int32_t kv_head) const {
  const SequenceState& read = state(sequence);
  const LaneState& source = read.lanes[lane_index(layer, kv_head)];
  const int32_t slots = geometry_.layout(read.dtype).slots();
  const int64_t stride = position_stride(geometry_);
  std::vector<int32_t> result(static_cast<size_t>(source.length));
  for (size_t page = 0; page < source.pages.size(); ++page) {
    const int32_t first = static_cast<int32_t>(page) * slots;
    const int32_t count = std::min(slots, source.length - first);
    int32_t* from = reinterpret_cast<int32_t*>(positions_.get()) + source.pages[page] * stride;
    backend_.fetch({result.data() + first, {from, DType::kI32, 1, count, count}});
  }
  return result;
}

CacheBytes KvCache::bytes(SequenceId sequence) const { return state(sequence).bytes; }

void KvCache::add_layer_bytes(SequenceId sequence, std::span<uint64_t> layers) const {
  PKV_CHECK(layers.size() == static_cast<size_t>(geometry_.layers), "one sum for each layer");
  const SequenceState& summed = state(sequence);
  const auto entry_bytes = static_cast<uint64_t>(geometry_.layout(summed.dtype).entry_bytes());
  for (size_t lane = 0; lane < summed.lanes.size(); ++lane) {
    layers[lane / static_cast<size_t>(geometry_.kv_heads)] +=
        static_cast<uint64_t>(summed.lanes[lane].length) * entry_bytes;
  }
}

CacheBytes KvCache::total_bytes() const { return total_; }

KvView KvCache::base_view() const {
  return {.pool = memory_.get(),
          .positions = reinterpret_cast<int32_t*>(positions_.get()),
          .page_bytes = geometry_.page_bytes,
          .position_stride = position_stride(geometry_),
          .head_dim = geometry_.head_dim};
}

absl::Status KvCache::no_pages(int32_t pages, int32_t entries) const {
  return absl::ResourceExhaustedError(absl::StrCat("the cache has ", pool_.free(), " free pages of the ", pages,
                                                   " that ", entries, " more entries need"));
}

KvCache::SequenceState& KvCache::state(SequenceId sequence) {
  const auto found = sequences_.find(sequence);
  PKV_CHECK(found != sequences_.end(), "no such sequence");
  return found->second;
}

const KvCache::SequenceState& KvCache::state(SequenceId sequence) const {
  const auto found = sequences_.find(sequence);
  PKV_CHECK(found != sequences_.end(), "no such sequence");
  return found->second;
}

size_t KvCache::lane_index(int32_t layer, int32_t kv_head) const {
  PKV_CHECK(layer >= 0 && layer < geometry_.layers && kv_head >= 0 && kv_head < geometry_.kv_heads, "no such lane");
  return static_cast<size_t>(layer) * static_cast<size_t>(geometry_.kv_heads) + static_cast<size_t>(kv_head);
}

void KvCache::account(SequenceState& changed, int64_t entries, int64_t pages) {
  const PageLayout layout = geometry_.layout(changed.dtype);
  const int64_t held = entries * layout.entry_bytes();
  const int64_t allocated = pages * geometry_.page_bytes;
  const int64_t auxiliary = pages * static_cast<int64_t>(geometry_.page_auxiliary_bytes(changed.dtype));
  add(changed.bytes, held, allocated, auxiliary);
  add(total_, held, allocated, auxiliary);
}

}  // namespace pkv
