// The key/value cache of all sequences: lanes, their pages from one pool, the position of every slot, and exact byte
// accounting. Every layer and KV head of every sequence has a length of its own. Owned by the engine thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "server/cache/page_pool.h"
#include "server/cache/page_table.h"

namespace pkv {

class StepBuffer;

struct CacheGeometry {
  int32_t layers = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t page_bytes = 4096;

  PageLayout layout(KvDtype dtype) const { return {dtype, head_dim, page_bytes}; }
  // Of the side array of positions: slots of the densest format.
  int32_t position_stride() const { return densest_slots(head_dim, page_bytes); }
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

// What a sequence's lanes may hold, from which their places in the page table follow.
struct SequenceLimits {
  KvDtype dtype = KvDtype::kF16;
  std::span<const int32_t> lane_entries;  // [layers * kv_heads] at most, at any time
  // At most, of the lanes of one layer at a time, until end_prompt(). Where it is not 0 every layer has entries of
  // prompt_format(dtype) until it is cut.
  int32_t layer_entries = 0;
  // Of all lanes together at most, where it is not 0: then the lanes have no places yet, and get them by set_limits().
  int64_t shared_entries = 0;
};

// A sequence's part of the cache; the cache's own.
struct CachedSequence;
// Names an open sequence.
using SequenceId = CachedSequence*;

class KvCache {
 public:
  // The pool has pool_bytes / page_bytes pages; auxiliary bytes are beside it. INVALID_ARGUMENT where a page is no
  // multiple of 64 bytes or does not hold one entry of every format, or the pool does not hold one page;
  // RESOURCE_EXHAUSTED where the address space of the pool cannot be had. The pool costs no memory until pages are
  // written. `backend` must outlive the cache.
  static absl::StatusOr<std::unique_ptr<KvCache>> create(Backend& backend, const CacheGeometry& geometry,
                                                         uint64_t pool_bytes);
  ~KvCache();

  const CacheGeometry& geometry() const { return geometry_; }
  const PagePool& pool() const { return pool_; }
  Backend& backend() const { return backend_; }

  // RESOURCE_EXHAUSTED where the page table has no room for these limits. It has it for all sequences whose pages the
  // pool has, so not for an admitted request.
  absl::StatusOr<SequenceId> open(const SequenceLimits& limits);
  void close(SequenceId sequence);  // gives back every page

  // Makes every lane of `layer` so many entries longer; the step that follows writes them. RESOURCE_EXHAUSTED, and
  // nothing changed, where the pool has too few pages (admission reserves them, so for an admitted request this is a
  // bug).
  [[nodiscard]] absl::Status append_slots(SequenceId sequence, int32_t layer, int32_t entries);
  // One lane `count` entries longer, likewise.
  [[nodiscard]] absl::Status append_slots(SequenceId sequence, int32_t layer, int32_t kv_head, int32_t entries);
  // Room for one more token in every lane of every layer: it is one entry longer, or, where it has all it may have, the
  // step writes over one of its entries. Returns how many lanes are. Errors as append_slots().
  [[nodiscard]] absl::StatusOr<int64_t> place_token(SequenceId sequence);
  // Writes the layer's lanes [kv_heads] as a step sees them that writes their last `rows` entries.
  void view(SequenceId sequence, int32_t layer, int32_t rows, Lane* lanes) const;
  // As a step saw them that wrote the `rows` entries from `first` on: later entries are not there.
  void view_written(SequenceId sequence, int32_t layer, int32_t first, int32_t rows, Lane* lanes) const;
  // The same lanes as they will be once they are cut: what Backend::gather() converts a layer's entries to in place.
  void view_cut(SequenceId sequence, int32_t layer, Lane* lanes) const;
  // Writes the lanes [kv_heads] of every layer as they are, of the step that writes the token of place_token() to their
  // last slots; those of layer l to lanes + l * layer_stride.
  void view_token(SequenceId sequence, Lane* lanes, int64_t layer_stride) const;
  // Cuts the lanes of `layer` to their first lengths[kv_head] entries and gives their further pages back. Those entries
  // are in the sequence's own format then (view_cut()).
  void cut(SequenceId sequence, int32_t layer, std::span<const int32_t> lengths);
  // Whether a cut leaves entries of another format than a prompt is read with.
  bool converts(SequenceId sequence) const;

  // Every layer has been cut: from now on no lane has more than its own limit.
  void end_prompt(SequenceId sequence);

  // A lane may have no more than `entries` from now on: at least what it has, at most what it was opened for.
  void set_limit(SequenceId sequence, int32_t layer, int32_t kv_head, int32_t entries);
  // The same for all lanes [layers * kv_heads] of a sequence that was opened with shared_entries, which is at least
  // their sum. Limits may grow too; the lanes of a layer that is not cut yet may have more.
  void set_limits(SequenceId sequence, std::span<const int32_t> entries);

  // Auxiliary bytes that are kept for the sequence beside the entries (scores, queries); until it is closed.
  void add_auxiliary(SequenceId sequence, uint64_t bytes);

  KvDtype dtype(SequenceId sequence) const;  // of what is kept
  int32_t length(SequenceId sequence, int32_t layer, int32_t kv_head) const;
  std::span<const int32_t> page_ids(SequenceId sequence, int32_t layer, int32_t kv_head) const;  // until it changes
  std::vector<int32_t> positions(SequenceId sequence, int32_t layer, int32_t kv_head) const;     // in slot order
  // The same: adds the reads that bring them to `to`.
  void read_positions(SequenceId sequence, int32_t layer, int32_t kv_head, std::vector<int32_t>& to,
                      std::vector<Fetch>& reads) const;
  CacheBytes bytes(SequenceId sequence) const;
  // Adds the bytes of the sequence's entries to those of each layer [layers].
  void add_layer_bytes(SequenceId sequence, std::span<uint64_t> layers) const;
  CacheBytes total_bytes() const;  // peak: the largest of the whole cache

  // ---- for steps
  // A view without lanes.
  KvView base_view() const;
  PageTable& page_table() { return *page_table_; }
  // For what is done to lanes between two steps: of some layers of some sequences.
  StepBuffer& between_steps() { return *between_steps_; }

 private:
  KvCache(Backend& backend, const CacheGeometry& geometry, int32_t pages);
  absl::Status no_pages(int32_t pages, int32_t entries) const;
  size_t lane_index(int32_t layer, int32_t kv_head) const;
  std::optional<int32_t> take_places(int32_t count);
  // A lane gets further pages, and entries in them.
  void grow(CachedSequence& sequence, size_t lane, std::span<const int32_t> pages, int32_t entries);
  // How many more pages the lane needs for so many more entries.
  static int32_t pages_needed(const CachedSequence& sequence, size_t lane, int32_t entries);
  void leave_own_range(CachedSequence& sequence, size_t lane);
  void return_to_own_range(CachedSequence& sequence, size_t lane);
  // Bytes by which something changes.
  struct Change {
    int64_t held = 0, allocated = 0, auxiliary = 0;
  };
  // Adds so many entries and pages of a format.
  void count(const PageLayout& layout, int64_t entries, int64_t pages, Change& change) const;
  // Changes one sequence and the total.
  void account(CachedSequence& changed, const Change& change);

  CacheGeometry geometry_;
  Backend& backend_;
  PagePool pool_;
  std::shared_ptr<std::byte> memory_;
  std::shared_ptr<std::byte> positions_;
  std::optional<PageTable> page_table_;
  std::unique_ptr<StepBuffer> between_steps_;
  std::vector<std::unique_ptr<CachedSequence>> sequences_;  // ascending by their places in the page table
  std::vector<int32_t> taken_;                              // pages, reused
  CacheBytes total_;
};

}  // namespace pkv
