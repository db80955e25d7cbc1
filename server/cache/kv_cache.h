// The key/value cache of all sequences: lanes, their pages from one pool, the position of every slot, and exact byte
// accounting. Every layer and KV head of every sequence has a length of its own. Owned by the engine thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "server/cache/page_pool.h"

namespace pkv {

struct CacheGeometry {
  int32_t layers = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t page_bytes = 4096;

  PageLayout layout(KvDtype dtype) const { return {dtype, head_dim, page_bytes}; }
  // Auxiliary bytes that come with one page: the positions of its slots and its entry in the page table.
  uint64_t page_auxiliary_bytes(KvDtype dtype) const { return uint64_t{4} * layout(dtype).slots() + 4; }
  // Allocated plus auxiliary bytes of `pages` pages.
  uint64_t bytes_of_pages(uint64_t pages, KvDtype dtype) const {
    return pages * (static_cast<uint64_t>(page_bytes) + page_auxiliary_bytes(dtype));
  }
};

// Bytes of one sequence (or of all).
struct CacheBytes {
  uint64_t held = 0;       // entries
  uint64_t allocated = 0;  // pages
  uint64_t auxiliary = 0;  // positions, page tables, and what add_auxiliary() says
  uint64_t peak = 0;       // largest allocated + auxiliary at any instant so far
};

using SequenceId = int64_t;

class KvCache {
 public:
  // The pool has pool_bytes / page_bytes pages; auxiliary bytes are beside it. INVALID_ARGUMENT where a page is no
  // multiple of 64 bytes or does not hold one entry of every format, or the pool does not hold one page;
  // RESOURCE_EXHAUSTED where the address space of the pool cannot be had. The pool costs no memory until pages are
  // written.
  static absl::StatusOr<std::unique_ptr<KvCache>> create(Backend& backend, const CacheGeometry& geometry,
                                                         uint64_t pool_bytes);

  const CacheGeometry& geometry() const { return geometry_; }
  const PagePool& pool() const { return pool_; }

  SequenceId open(KvDtype dtype);
  void close(SequenceId sequence);  // gives back every page

  // Makes every lane of `layer` `count` entries longer; the step that follows writes them. RESOURCE_EXHAUSTED, and
  // nothing changed, where the pool has too few pages (admission reserves them, so for an admitted request this is a
  // bug).
  [[nodiscard]] absl::Status append_slots(SequenceId sequence, int32_t layer, int32_t count);
  // One lane `count` entries longer, likewise.
  [[nodiscard]] absl::Status append_slots(SequenceId sequence, int32_t layer, int32_t kv_head, int32_t count);
  // Room for one more token in every lane of `layer`: where slots[kv_head] is the lane's length it grows by one entry,
  // otherwise its entry in that slot is given up. As append_slots.
  [[nodiscard]] absl::Status place_token(SequenceId sequence, int32_t layer, std::span<const int32_t> slots);
  // Appends the layer's lanes [kv_heads] as a step sees them that writes the last `rows` entries, and their page ids.
  void view(SequenceId sequence, int32_t layer, int32_t rows, std::vector<Lane>& lanes,
            std::vector<int32_t>& page_ids) const;
  // The same for a step that writes one token to the slots that place_token() made room in.
  void view_token(SequenceId sequence, int32_t layer, std::span<const int32_t> slots, std::vector<Lane>& lanes,
                  std::vector<int32_t>& page_ids) const;
  // Cuts a lane to its first `length` entries and gives its further pages back.
  void shrink(SequenceId sequence, int32_t layer, int32_t kv_head, int32_t length);

  // Auxiliary bytes that are kept for the sequence beside the entries (scores, queries); until it is closed.
  void add_auxiliary(SequenceId sequence, uint64_t bytes);

  KvDtype dtype(SequenceId sequence) const;
  int32_t length(SequenceId sequence, int32_t layer, int32_t kv_head) const;
  std::vector<int32_t> positions(SequenceId sequence, int32_t layer, int32_t kv_head) const;  // in slot order
  CacheBytes bytes(SequenceId sequence) const;
  // Adds the bytes of the sequence's entries to those of each layer [layers].
  void add_layer_bytes(SequenceId sequence, std::span<uint64_t> layers) const;
  CacheBytes total_bytes() const;  // peak: the largest of the whole cache
  // A view without lanes and page ids, for StepPlan::cache.
  KvView base_view() const;

 private:
  struct LaneState {
    int32_t length = 0;
    std::vector<int32_t> pages;
  };
  struct SequenceState {
    KvDtype dtype = KvDtype::kF16;
    std::vector<LaneState> lanes;  // [layers * kv_heads]
    CacheBytes bytes;
    uint64_t added_auxiliary = 0;  // by add_auxiliary()
  };

  KvCache(Backend& backend, const CacheGeometry& geometry, int32_t pages);
  SequenceState& state(SequenceId sequence);
  const SequenceState& state(SequenceId sequence) const;
  absl::Status no_pages(int32_t pages, int32_t entries) const;
  size_t lane_index(int32_t layer, int32_t kv_head) const;
  Lane lane_of(const SequenceState& viewed, const LaneState& source, std::vector<int32_t>& page_ids) const;
  // Changes by so many entries and pages, for one sequence and in total.
  void account(SequenceState& changed, int64_t entries, int64_t pages);

  CacheGeometry geometry_;
  Backend& backend_;
  PagePool pool_;
  std::shared_ptr<std::byte> memory_;
  std::shared_ptr<std::byte> positions_;
  std::unordered_map<SequenceId, SequenceState> sequences_;
  SequenceId next_id_ = 1;
  CacheBytes total_;
};

}  // namespace pkv
