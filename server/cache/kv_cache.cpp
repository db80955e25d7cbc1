// KvCache: hands pages to lanes and takes them back, keeps the page table and the byte counts of every sequence and of
// the whole in step with each change.
#include "server/cache/kv_cache.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "server/cache/cached_sequence.h"
#include "server/cache/step_buffer.h"

namespace pkv {
namespace {

constexpr int32_t kPageAlignment = 64;  // bytes: every page begins on a cache line

// Places of the page table for each page of the pool. Sequences that the pool has pages for want at most one place for
// a page of a layer that is not cut yet, and one of every lane for what a layer's lanes keep, where any of them may get
// all of it. Twice as many, so that half of them are free whenever gaps are closed.
int64_t places_per_page(const CacheGeometry& geometry) { return 2 * (int64_t{geometry.kv_heads} + 1); }

// Sequences that something is done to at once, between two steps.
constexpr int32_t kSequencesBetweenSteps = 4;

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
  PKV_ASSIGN_OR_RETURN(auto positions, backend.allocate_lazy(pages * static_cast<uint64_t>(geometry.position_stride()) *
                                                             sizeof(int32_t)));
  cache->memory_ = std::move(memory);
  cache->positions_ = std::move(positions);
  const int64_t places =
      std::min<int64_t>(places_per_page(geometry) * static_cast<int64_t>(pages), std::numeric_limits<int32_t>::max());
  PKV_ASSIGN_OR_RETURN(cache->page_table_, PageTable::create(backend, static_cast<int32_t>(places)));
  PKV_ASSIGN_OR_RETURN(StepBuffer between_steps,
                       StepBuffer::create(*cache, {.spans = kSequencesBetweenSteps, .layers = geometry.layers}));
  cache->between_steps_ = std::make_unique<StepBuffer>(std::move(between_steps));
  return cache;
}

KvCache::KvCache(Backend& backend, const CacheGeometry& geometry, int32_t pages)
    : geometry_(geometry), backend_(backend), pool_(pages) {}

KvCache::~KvCache() = default;

absl::StatusOr<SequenceId> KvCache::open(const SequenceLimits& limits) {
  const auto heads = static_cast<size_t>(geometry_.kv_heads);
  PKV_CHECK(limits.lane_entries.size() == static_cast<size_t>(geometry_.layers) * heads, "a limit for each lane");
  auto opened =
      std::make_unique<CachedSequence>(geometry_.layout(limits.dtype), geometry_.layout(prompt_format(limits.dtype)));
  const int32_t layer_pages = opened->prompt_layout.pages_for(limits.layer_entries);
  int64_t places = 0;
  if (limits.shared_entries > 0) {
    opened->layer_pages = layer_pages;
    // A page more for what each lane has in its last, and a place that keeps the layer's lanes apart from empty ones.
    places = static_cast<int64_t>(limits.lane_entries.size()) + limits.shared_entries / opened->layout.slots() + 1;
    opened->lanes.assign(limits.lane_entries.size(), {.whole = limits.layer_entries > 0});
  }
  for (const int32_t limit : limits.shared_entries > 0 ? std::span<const int32_t>() : limits.lane_entries) {
    opened->lanes.push_back({.whole = limits.layer_entries > 0, .limit = limit});
    places += opened->layout.pages_for(limit);
    if (opened->layout.pages_for(limit) < layer_pages) opened->layer_pages = layer_pages;
  }
  places += static_cast<int64_t>(heads) * opened->layer_pages;
  const std::optional<int32_t> first =
      places > page_table_->places() ? std::nullopt : take_places(static_cast<int32_t>(places));
  if (!first) return absl::ResourceExhaustedError(absl::StrCat("no room for page tables of ", places, " pages"));
  opened->first = *first;
  opened->places = static_cast<int32_t>(places);
  int32_t next = *first;
  for (CachedLane& lane : opened->lanes) {
    lane.own = lane.first = next;
    next += opened->layout.pages_for(lane.limit);
  }
  return sequences_.emplace_back(std::move(opened)).get();
}

// Where the end of the table is reached, the gaps that closed sequences left are closed first.
std::optional<int32_t> KvCache::take_places(int32_t count) {
  if (const std::optional<int32_t> first = page_table_->take(count)) return first;
  page_table_->restart(0);
  int32_t end = 0;
  for (const std::unique_ptr<CachedSequence>& moved : sequences_) {
    const int32_t by = moved->first - end;
    page_table_->move(moved->first, end, moved->places);
    moved->first = end;
    for (CachedLane& lane : moved->lanes) {
      lane.first -= by;
      lane.own -= by;
    }
    end += moved->places;
  }
  return page_table_->take(count);
}

void KvCache::close(SequenceId sequence) {
  Change change;
  for (const CachedLane& lane : sequence->lanes) {
    pool_.give_back(page_table_->range(lane.first, lane.pages));
    count(sequence->layout_of(lane), -lane.length, -lane.pages, change);
  }
  account(*sequence, change);
  total_.auxiliary -= sequence->added_auxiliary;
  const auto closed =
      std::find_if(sequences_.begin(), sequences_.end(), [&](const auto& open) { return open.get() == sequence; });
  PKV_CHECK(closed != sequences_.end(), "no such sequence");
  sequences_.erase(closed);
}

int32_t KvCache::pages_needed(const CachedSequence& sequence, size_t lane, int32_t entries) {
  const CachedLane& grown = sequence.lanes[lane];
  return sequence.layout_of(grown).pages_for(grown.length + entries) - grown.pages;
}

absl::Status KvCache::append_slots(SequenceId sequence, int32_t layer, int32_t entries) {
  PKV_CHECK(entries >= 0, "a negative number of slots");
  const size_t begin = lane_index(layer, 0), end = begin + static_cast<size_t>(geometry_.kv_heads);
  int32_t pages = 0;
  for (size_t lane = begin; lane < end; ++lane) pages += pages_needed(*sequence, lane, entries);
  taken_.clear();
  if (!pool_.take(pages, taken_)) return no_pages(pages, entries);
  std::span<const int32_t> rest = taken_;
  Change change;
  for (size_t lane = begin; lane < end; ++lane) {
    const int32_t needed = pages_needed(*sequence, lane, entries);
    grow(*sequence, lane, rest.first(static_cast<size_t>(needed)), entries);
    rest = rest.subspan(static_cast<size_t>(needed));
    count(sequence->layout_of(sequence->lanes[lane]), entries, needed, change);
  }
  account(*sequence, change);
  return absl::OkStatus();
}

absl::Status KvCache::append_slots(SequenceId sequence, int32_t layer, int32_t kv_head, int32_t entries) {
  PKV_CHECK(entries >= 0, "a negative number of slots");
  const size_t lane = lane_index(layer, kv_head);
  const int32_t pages = pages_needed(*sequence, lane, entries);
  taken_.clear();
  if (!pool_.take(pages, taken_)) return no_pages(pages, entries);
  grow(*sequence, lane, taken_, entries);
  Change change;
  count(sequence->layout_of(sequence->lanes[lane]), entries, pages, change);
  account(*sequence, change);
  return absl::OkStatus();
}

absl::StatusOr<int64_t> KvCache::place_token(SequenceId sequence) {
  const int32_t slots = sequence->layout.slots();
  int32_t pages = 0;
  int64_t full = 0;
  for (const CachedLane& lane : sequence->lanes) {
    const bool grows = lane.length < lane.limit;
    full += grows ? 0 : 1;
    pages += grows && lane.length == lane.pages * slots ? 1 : 0;
  }
  taken_.clear();
  if (!pool_.take(pages, taken_)) return no_pages(pages, 1);
  const int32_t* next = taken_.data();
  for (CachedLane& lane : sequence->lanes) {
    if (lane.length >= lane.limit) continue;
    if (lane.length == lane.pages * slots) page_table_->set(lane.first + lane.pages++, *next++);
    ++lane.length;
  }
  Change change;
  count(sequence->layout, static_cast<int64_t>(sequence->lanes.size()) - full, pages, change);
  account(*sequence, change);
  return full;
}

void KvCache::grow(CachedSequence& sequence, size_t lane, std::span<const int32_t> pages, int32_t entries) {
  CachedLane& grown = sequence.lanes[lane];
  grown.length += entries;
  const auto all_pages = grown.pages + static_cast<int32_t>(pages.size());
  if (grown.first == grown.own && all_pages > sequence.layout.pages_for(grown.limit)) leave_own_range(sequence, lane);
  for (const int32_t page : pages) page_table_->set(grown.first + grown.pages++, page);
}

void KvCache::leave_own_range(CachedSequence& sequence, size_t lane) {
  CachedLane& leaving = sequence.lanes[lane];
  const auto heads = static_cast<size_t>(geometry_.kv_heads);
  PKV_CHECK(leaving.length <= sequence.layer_pages * sequence.layout_of(leaving).slots(), "a lane beyond its limit");
  PKV_CHECK(sequence.whole_lanes == 0 || sequence.whole_layer == lane / heads, "two layers beyond their limits");
  sequence.whole_layer = lane / heads;
  ++sequence.whole_lanes;
  leaving.first = sequence.layer_first(lane % heads, heads);
  for (int32_t i = 0; i < leaving.pages; ++i) page_table_->set(leaving.first + i, page_table_->at(leaving.own + i));
}

void KvCache::return_to_own_range(CachedSequence& sequence, size_t lane) {
  CachedLane& returning = sequence.lanes[lane];
  for (int32_t i = 0; i < returning.pages; ++i)
    page_table_->set(returning.own + i, page_table_->at(returning.first + i));
  returning.first = returning.own;
  --sequence.whole_lanes;
}

void KvCache::cut(SequenceId sequence, int32_t layer, std::span<const int32_t> lengths) {
  PKV_CHECK(lengths.size() == static_cast<size_t>(geometry_.kv_heads), "a length for each lane");
  const size_t begin = lane_index(layer, 0);
  Change change;  // of all lanes at once: none is converted alone
  for (size_t head = 0; head < lengths.size(); ++head) {
    CachedLane& target = sequence->lanes[begin + head];
    PKV_CHECK(lengths[head] >= 0 && lengths[head] <= target.length, "a lane is cut to more entries than it has");
    count(sequence->layout_of(target), -target.length, -target.pages, change);
    target.whole = false;
    const int32_t pages = sequence->layout.pages_for(lengths[head]);
    pool_.give_back(page_table_->range(target.first + pages, target.pages - pages));
    target.pages = pages;
    target.length = lengths[head];
    count(sequence->layout, target.length, target.pages, change);
    if (target.first != target.own && pages <= sequence->layout.pages_for(target.limit)) {
      return_to_own_range(*sequence, begin + head);
    }
  }
  account(*sequence, change);
}

bool KvCache::converts(SequenceId sequence) const {
  return sequence->layout.format().id != sequence->prompt_layout.format().id;
}

// The places of a whole layer are a gap from now on; with them a pool of short sequences would run out of places.
void KvCache::end_prompt(SequenceId sequence) {
  PKV_CHECK(sequence->whole_lanes == 0, "a prompt ends before its last layer is cut");
  sequence->places -= geometry_.kv_heads * sequence->layer_pages;
  sequence->layer_pages = 0;
}

void KvCache::set_limit(SequenceId sequence, int32_t layer, int32_t kv_head, int32_t entries) {
  CachedLane& limited = sequence->lanes[lane_index(layer, kv_head)];
  PKV_CHECK(entries >= limited.length && entries <= limited.limit,
            "a limit below the lane's length or above the old one");
  limited.limit = entries;
}

void KvCache::set_limits(SequenceId sequence, std::span<const int32_t> entries) {
  PKV_CHECK(entries.size() == sequence->lanes.size(), "a limit for each lane");
  std::vector<int32_t> ids;  // of lanes in ranges of their own
  for (const CachedLane& lane : sequence->lanes) {
    if (lane.first != lane.own) continue;
    const std::span<const int32_t> pages = page_table_->range(lane.first, lane.pages);
    ids.insert(ids.end(), pages.begin(), pages.end());
  }
  const int32_t* next_id = ids.data();
  int32_t next = sequence->first;
  for (size_t i = 0; i < entries.size(); ++i) {
    CachedLane& lane = sequence->lanes[i];
    const bool at_home = lane.first == lane.own;
    PKV_CHECK(!at_home || lane.length <= entries[i], "a limit below the lane's length");
    lane.limit = entries[i];
    lane.own = next;
    if (at_home) lane.first = next;
    for (int32_t page = 0; at_home && page < lane.pages; ++page) page_table_->set(next + page, *next_id++);
    next += sequence->layout.pages_for(lane.limit);
  }
  PKV_CHECK(next < sequence->layer_first(0, static_cast<size_t>(geometry_.kv_heads)), "more than the lanes may share");
}

void KvCache::add_auxiliary(SequenceId sequence, uint64_t bytes) {
  sequence->added_auxiliary += bytes;
  add(sequence->bytes, 0, 0, static_cast<int64_t>(bytes));
  add(total_, 0, 0, static_cast<int64_t>(bytes));
}

absl::Status KvCache::no_pages(int32_t pages, int32_t entries) const {
  return absl::ResourceExhaustedError(absl::StrCat("the cache has ", pool_.free(), " free pages of the ", pages,
                                                   " that ", entries, " more entries need"));
}

size_t KvCache::lane_index(int32_t layer, int32_t kv_head) const {
  PKV_CHECK(layer >= 0 && layer < geometry_.layers && kv_head >= 0 && kv_head < geometry_.kv_heads, "no such lane");
  return static_cast<size_t>(layer) * static_cast<size_t>(geometry_.kv_heads) + static_cast<size_t>(kv_head);
}

void KvCache::count(const PageLayout& layout, int64_t entries, int64_t pages, Change& change) const {
  change.held += entries * layout.entry_bytes();
  change.allocated += pages * geometry_.page_bytes;
  change.auxiliary += pages * static_cast<int64_t>(geometry_.page_auxiliary_bytes(layout.format().id));
}

void KvCache::account(CachedSequence& changed, const Change& change) {
  add(changed.bytes, change.held, change.allocated, change.auxiliary);
  add(total_, change.held, change.allocated, change.auxiliary);
}

}  // namespace pkv
