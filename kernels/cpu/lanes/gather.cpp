// Moves entries between slots, within lanes or from some to others. Where nothing is overwritten before it is read the
// entries stream to their places; otherwise all of them go through scratch memory.
#include <algorithm>

#include "kernels/check.h"
#include "kernels/cpu/attention/attention.h"
#include "kernels/cpu/lanes/entry_elements.h"
#include "kernels/cpu/parallel.h"

namespace pkv {
namespace {

// Each thread moves its own dimensions of every entry, in order: parts of an entry never touch each other.
constexpr int32_t kDimsPerTask = 32;

// Of one lane.
struct GatherJob {
  const KvView& kv;
  const Lane& from;
  const Lane& to;
  std::span<const int32_t> kept;
  bool in_place = false;
  std::byte* staging = nullptr;  // room for all entries, or nullptr: stream
  int32_t* positions = nullptr;  // room for all positions

  // An entry that stays where it is.
  bool stays(size_t i) const { return in_place && kept[i] == static_cast<int32_t>(i); }
  // In place, slot i is written before slot kept[j] is read for i < j: safe where no entry moves to a later slot.
  bool streams() const {
    if (!in_place) return true;
    for (size_t i = 0; i < kept.size(); ++i) {
      if (kept[i] < static_cast<int32_t>(i)) return false;
    }
    return true;
  }
};

// Where an entry lies: dimension k of the key at key[k * key_stride], of the value at value[k].
template <typename Elements>
struct EntryPlace {
  typename Elements::Key* key;
  int64_t key_stride;
  typename Elements::Value* value;
};

template <typename Elements>
class LanePlaces {
 public:
  LanePlaces(const KvView& kv, const Lane& lane) : kv_(kv), lane_(lane), layout_(page_layout(kv, lane)) {}
  EntryPlace<Elements> at(int32_t slot) const {
    std::byte* page = kv_.page(lane_, slot / layout_.slots());
    const int32_t place = slot % layout_.slots();
    return {.key = reinterpret_cast<typename Elements::Key*>(page + layout_.key_at(place, 0)),
            .key_stride = layout_.slots(),
            .value = reinterpret_cast<typename Elements::Value*>(page + layout_.value_at(place, 0))};
  }

 private:
  const KvView& kv_;
  const Lane& lane_;
  PageLayout layout_;
};

template <typename Elements>
void gather_dims(const GatherJob& job, int32_t begin, int32_t end) {
  using Key = typename Elements::Key;
  using Value = typename Elements::Value;
  const LanePlaces<Elements> from(job.kv, job.from);
  const LanePlaces<Elements> to(job.kv, job.to);
  const PageLayout layout = page_layout(job.kv, job.from);
  const int64_t entry_bytes = layout.entry_bytes(), key_bytes = layout.format().key.bytes(job.kv.head_dim);
  const auto staged = [&](size_t i) {
    std::byte* entry = job.staging + static_cast<int64_t>(i) * entry_bytes;
    return EntryPlace<Elements>{
        .key = reinterpret_cast<Key*>(entry), .key_stride = 1, .value = reinterpret_cast<Value*>(entry + key_bytes)};
  };
  const auto move = [&](const EntryPlace<Elements>& source, const EntryPlace<Elements>& target) {
    for (int32_t k = begin; k < end; ++k) target.key[k * target.key_stride] = source.key[k * source.key_stride];
    std::copy(source.value + begin, source.value + end, target.value + begin);
  };
  for (size_t i = 0; i < job.kept.size(); ++i) {
    if (job.stays(i)) continue;
    move(from.at(job.kept[i]), job.staging == nullptr ? to.at(static_cast<int32_t>(i)) : staged(i));
  }
  if (job.staging == nullptr) return;
  for (size_t i = 0; i < job.kept.size(); ++i) {
    if (!job.stays(i)) move(staged(i), to.at(static_cast<int32_t>(i)));
  }
}

void gather_positions(const GatherJob& job) {
  const int32_t slots = page_layout(job.kv, job.from).slots();
  for (size_t i = 0; i < job.kept.size(); ++i) {
    job.positions[i] = job.kv.page_positions(job.from, job.kept[i] / slots)[job.kept[i] % slots];
  }
  for (int32_t first = 0; first < static_cast<int32_t>(job.kept.size()); first += slots) {
    const int32_t count = std::min(slots, static_cast<int32_t>(job.kept.size()) - first);
    std::copy_n(job.positions + first, count, job.kv.page_positions(job.to, first / slots));
  }
}

// Of the entries' staging, in whole cache lines.
int64_t staging_bytes(const GatherJob& job) {
  const int64_t bytes = static_cast<int64_t>(job.kept.size()) * page_layout(job.kv, job.from).entry_bytes();
  return (bytes + 63) / 64 * 64;
}

}  // namespace

void CpuAttention::gather(const KvView& kv, int32_t from, const TensorView& kept, const TensorView& counts,
                          int32_t to) {
  const auto lanes = static_cast<int32_t>(kept.rows);
  PKV_CHECK(counts.cols == lanes, "a count for each lane");
  std::vector<GatherJob> jobs;
  int64_t entries = 0, staged_bytes = 0;
  for (int32_t g = 0; g < lanes; ++g) {
    const int32_t count = counts.i32()[g];
    PKV_CHECK(count >= 0 && count <= kept.cols, "as many slots as there are to gather");
    jobs.push_back({.kv = kv,
                    .from = kv.lanes[from + g],
                    .to = kv.lanes[to + g],
                    .kept = {kept.i32_row(g), static_cast<size_t>(count)},
                    .in_place = from == to});
    const GatherJob& job = jobs.back();
    PKV_CHECK(job.from.dtype == job.to.dtype, "entries move between lanes of one format");
    for (const int32_t slot : job.kept) PKV_CHECK(slot >= 0 && slot < job.from.length, "an entry outside the lane");
    entries += count;
    if (!job.streams()) staged_bytes += staging_bytes(job);
  }
  auto* staging = shared_.reserve<std::byte>(staged_bytes);
  auto* positions = partials_.reserve<int32_t>(entries);
  for (GatherJob& job : jobs) {
    job.positions = positions;
    positions += job.kept.size();
    if (job.streams()) continue;
    job.staging = staging;
    staging += staging_bytes(job);
  }
  const int64_t parts = (kv.head_dim + kDimsPerTask - 1) / kDimsPerTask;
  const int64_t work = entries * 2 * kv.head_dim / std::max<int64_t>(1, lanes * parts);
  parallel_for(pool_, lanes * parts, work, [&](int64_t item) {
    const GatherJob& job = jobs[static_cast<size_t>(item / parts)];
    const auto begin = static_cast<int32_t>(item % parts) * kDimsPerTask;
    const int32_t end = std::min(kv.head_dim, begin + kDimsPerTask);
    with_elements(job.from.dtype, [&](auto types) { gather_dims<decltype(types)>(job, begin, end); });
    if (begin == 0) gather_positions(job);
  });
}

}  // namespace pkv
