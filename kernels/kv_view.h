// What a kernel may know of the key/value cache. Plain data, the same structs on every backend.
//
// The unit of the cache is a LANE: one KV head of one layer of one sequence. A lane's entries lie in pages of a fixed
// number of BYTES; a page belongs to one lane. What an entry is and how a page is laid out is the entry format's
// (entry_format.h): how many slots a page has follows from it and is never assumed to be a power of two. The original
// position of every slot lies in a side array indexed by page and slot.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/tensor.h"

namespace pkv {

// A format of cache entries: the number of its row in entry_format.h.
enum class KvDtype : uint8_t { kF16, kF32, kBF16, kK8V4 };

// In place of a write slot: an entry goes, and Backend::choose_slots() says which.
constexpr int32_t kChosenByEviction = -1;

// One lane as one step sees it. Slot s lies in page page_ids[first_page + s / slots], place s % slots.
//
// A step appends a sequence's rows in order, so causality needs no mask: its row i (0-based) is written to slot
// `write_slot + i` and sees the slots [0, visible + i). Appending to a lane of n entries: write_slot = n, visible = n +
// 1, length = n + rows. Overwriting an evicted slot (one row): write_slot = that slot, visible = length = n.
struct Lane {
  int32_t first_page = 0;  // index into KvView::page_ids
  int32_t length = 0;      // slots in use once this step's rows are written
  int32_t write_slot = 0;
  int32_t visible = 0;
  int32_t first_score = 0;  // of a lane whose entries go while generating: where their scores begin (eviction.h)
  KvDtype dtype = KvDtype::kF16;
};

// The cache as one step sees it.
struct KvView {
  std::byte* pool = nullptr;          // [pages][page_bytes]
  int32_t* positions = nullptr;       // [pages][position_stride]: original position of each slot
  const int32_t* page_ids = nullptr;  // the page tables of all lanes there are
  Lane* lanes = nullptr;  // [sequences of the step][kv_heads] of a layer; where an operation says so, of several
  int32_t lane_count = 0;
  int32_t page_bytes = 0;
  int32_t position_stride = 0;  // slots of the densest entry format
  int32_t head_dim = 0;

  PKV_HOST_DEVICE std::byte* page(const Lane& lane, int32_t page_index) const {
    return pool + static_cast<int64_t>(page_ids[lane.first_page + page_index]) * page_bytes;
  }
  PKV_HOST_DEVICE int32_t* page_positions(const Lane& lane, int32_t page_index) const {
    return positions + static_cast<int64_t>(page_ids[lane.first_page + page_index]) * position_stride;
  }
};

// An entry of a page table that changes.
struct PageEdit {
  int32_t at = 0;    // index into KvView::page_ids
  int32_t page = 0;  // from now on
};

// The rows of one sequence in a step: rows [first_row, first_row + rows) of the step's tensors belong to the lanes
// [first_lane, first_lane + kv_heads) of the view.
struct RowSpan {
  int32_t first_row = 0;
  int32_t rows = 0;
  int32_t first_lane = 0;
};

// The spans of a step.
struct RowSpans {
  const RowSpan* data = nullptr;
  int32_t count = 0;

  PKV_HOST_DEVICE const RowSpan* begin() const { return data; }
  PKV_HOST_DEVICE const RowSpan* end() const { return data + count; }
};

}  // namespace pkv
