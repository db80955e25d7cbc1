// KvCache: what steps and reports see of it.
#include <algorithm>

#include "kernels/check.h"
#include "server/cache/cached_sequence.h"
#include "server/cache/kv_cache.h"

namespace pkv {

void KvCache::view(SequenceId sequence, int32_t layer, int32_t rows, Lane* lanes) const {
  const size_t begin = lane_index(layer, 0);
  for (size_t head = 0; head < static_cast<size_t>(geometry_.kv_heads); ++head) {
    const CachedLane& source = sequence->lanes[begin + head];
    PKV_CHECK(rows >= 0 && rows <= source.length, "a step writes more entries than the lane has");
    const int32_t write_slot = source.length - rows;
    lanes[head] = {.first_page = source.first,
                   .length = source.length,
                   .write_slot = write_slot,
                   .visible = write_slot + 1,
                   .dtype = sequence->layout_of(source).format().id};
  }
}

void KvCache::view_written(SequenceId sequence, int32_t layer, int32_t first, int32_t rows, Lane* lanes) const {
  view(sequence, layer, 0, lanes);
  for (Lane* lane = lanes; lane != lanes + geometry_.kv_heads; ++lane) {
    PKV_CHECK(first + rows <= lane->length, "entries that were never written");
    lane->length = first + rows;
    lane->write_slot = first;
    lane->visible = first + 1;
  }
}

void KvCache::view_cut(SequenceId sequence, int32_t layer, Lane* lanes) const {
  view(sequence, layer, 0, lanes);
  for (Lane* lane = lanes; lane != lanes + geometry_.kv_heads; ++lane) lane->dtype = dtype(sequence);
}

void KvCache::view_token(SequenceId sequence, Lane* lanes, int64_t layer_stride) const {
  const CachedLane* source = sequence->lanes.data();
  for (int32_t layer = 0; layer < geometry_.layers; ++layer, lanes += layer_stride) {
    for (int32_t head = 0; head < geometry_.kv_heads; ++head, ++source) {
      lanes[head] = {.first_page = source->first,
                     .length = source->length,
                     .write_slot = source->length - 1,
                     .visible = source->length,
                     .dtype = sequence->layout.format().id};
    }
  }
}

KvDtype KvCache::dtype(SequenceId sequence) const { return sequence->layout.format().id; }

int32_t KvCache::length(SequenceId sequence, int32_t layer, int32_t kv_head) const {
  return sequence->lanes[lane_index(layer, kv_head)].length;
}

std::span<const int32_t> KvCache::page_ids(SequenceId sequence, int32_t layer, int32_t kv_head) const {
  const CachedLane& lane = sequence->lanes[lane_index(layer, kv_head)];
  return page_table_->range(lane.first, lane.pages);
}

std::vector<int32_t> KvCache::positions(SequenceId sequence, int32_t layer, int32_t kv_head) const {
  std::vector<int32_t> result;
  std::vector<Fetch> reads;
  read_positions(sequence, layer, kv_head, result, reads);
  backend_.fetch(reads);
  return result;
}

void KvCache::read_positions(SequenceId sequence, int32_t layer, int32_t kv_head, std::vector<int32_t>& to,
                             std::vector<Fetch>& reads) const {
  const CachedLane& lane = sequence->lanes[lane_index(layer, kv_head)];
  const int32_t length = lane.length, slots = sequence->layout_of(lane).slots();
  to.resize(static_cast<size_t>(length));
  int32_t first = 0;
  for (const int32_t page : page_ids(sequence, layer, kv_head)) {
    const int32_t count = std::min(slots, length - first);
    int32_t* from = reinterpret_cast<int32_t*>(positions_.get()) + int64_t{page} * geometry_.position_stride();
    reads.push_back({to.data() + first, {from, DType::kI32, 1, count, count}});
    first += count;
  }
}

CacheBytes KvCache::bytes(SequenceId sequence) const { return sequence->bytes; }

void KvCache::add_layer_bytes(SequenceId sequence, std::span<uint64_t> layers) const {
  PKV_CHECK(layers.size() == static_cast<size_t>(geometry_.layers), "one sum for each layer");
  for (size_t i = 0; i < sequence->lanes.size(); ++i) {
    const CachedLane& lane = sequence->lanes[i];
    layers[i / static_cast<size_t>(geometry_.kv_heads)] +=
        static_cast<uint64_t>(lane.length) * static_cast<uint64_t>(sequence->layout_of(lane).entry_bytes());
  }
}

CacheBytes KvCache::total_bytes() const { return total_; }

KvView KvCache::base_view() const {
  return {.pool = memory_.get(),
          .positions = reinterpret_cast<int32_t*>(positions_.get()),
          .page_ids = page_table_->device(),
          .page_bytes = geometry_.page_bytes,
          .position_stride = geometry_.position_stride(),
          .head_dim = geometry_.head_dim};
}

}  // namespace pkv
