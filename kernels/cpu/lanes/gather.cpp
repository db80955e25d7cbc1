// Moves entries between slots, within lanes or from some to others of the same format (others: convert.cpp). Where
// nothing is overwritten before it is read the entries stream to their places; otherwise all of them go through scratch
// memory.
#include "kernels/cpu/lanes/gather.h"

#include <algorithm>

#include "kernels/check.h"
#include "kernels/cpu/attention/attention.h"
#include "kernels/cpu/lanes/entry_elements.h"
#include "kernels/cpu/parallel.h"

namespace pkv {
namespace {

// Each thread moves its own dimensions of every entry, in order: parts of an entry never touch each other.
constexpr int32_t kDimsPerTask = 32;

// An entry that stays where it is.
bool stays(const GatherJob& job, size_t i) { return job.in_place() && job.kept[i] == static_cast<int32_t>(i); }

// In place, slot i is written before slot kept[j] is read for i < j: safe where no entry moves to a later slot.
bool streams(const GatherJob& job) {
  for (size_t i = 0; i < job.kept.size() && job.in_place(); ++i) {
    if (job.kept[i] < static_cast<int32_t>(i)) return false;
  }
  return true;
}

// Where an entry lies: dimension k of the key at key[k * stride], the value in one piece, and its scales, where there
// are any, `stride` apart.
template <typename Elements>
struct EntryPlace {
  typename Elements::Key* key;
  typename Elements::Value* value;
  uint16_t* scales;
  int64_t stride;
};

template <typename Elements>
class LanePlaces {
 public:
  LanePlaces(const KvView& kv, const Lane& lane) : kv_(kv), lane_(lane), layout_(page_layout(kv, lane)) {}
  EntryPlace<Elements> at(int32_t slot) const {
    std::byte* page = kv_.page(lane_, slot / layout_.slots());
    const int32_t place = slot % layout_.slots();
    return {.key = reinterpret_cast<typename Elements::Key*>(page + layout_.key_at(place, 0)),
            .value = reinterpret_cast<typename Elements::Value*>(page + layout_.value_at(place, 0)),
            .scales = reinterpret_cast<uint16_t*>(page + layout_.key_scale_at(place, 0)),
            .stride = layout_.slots()};
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
  const EntryFormat& format = layout.format();
  const int64_t entry_bytes = layout.entry_bytes(), key_bytes = format.key.bytes(layout.head_dim()),
                value_bytes = format.value.bytes(layout.head_dim());
  // The scales of a key and those of a value, whose parts of a page follow each other.
  const int64_t scales = (entry_bytes - key_bytes - value_bytes) / static_cast<int64_t>(sizeof(uint16_t));
  const auto staged = [&](size_t i) {
    std::byte* entry = job.staging + static_cast<int64_t>(i) * entry_bytes;
    return EntryPlace<Elements>{.key = reinterpret_cast<Key*>(entry),
                                .value = reinterpret_cast<Value*>(entry + key_bytes),
                                .scales = reinterpret_cast<uint16_t*>(entry + key_bytes + value_bytes),
                                .stride = 1};
  };
  const auto move = [&](const EntryPlace<Elements>& source, const EntryPlace<Elements>& target) {
    for (int32_t k = begin; k < end; ++k) target.key[k * target.stride] = source.key[k * source.stride];
    std::copy(source.value + begin / kNumbersIn<Value>, source.value + end / kNumbersIn<Value>,
              target.value + begin / kNumbersIn<Value>);
    if constexpr (kIsCode<Key>) {
      for (int64_t k = 0; k < scales && begin == 0; ++k)
        target.scales[k * target.stride] = source.scales[k * source.stride];
    }
  };
  for (size_t i = 0; i < job.kept.size(); ++i) {
    if (stays(job, i)) continue;
    move(from.at(job.kept[i]), job.staging == nullptr ? to.at(static_cast<int32_t>(i)) : staged(i));
  }
  if (job.staging == nullptr) return;
  for (size_t i = 0; i < job.kept.size(); ++i) {
    if (!stays(job, i)) move(staged(i), to.at(static_cast<int32_t>(i)));
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
  std::vector<GatherJob> moved;
  std::vector<GatherJob> converted;
  int64_t entries = 0;
  for (int32_t g = 0; g < lanes; ++g) {
    const int32_t count = counts.i32()[g];
    PKV_CHECK(count >= 0 && count <= kept.cols, "as many slots as there are to gather");
    const Lane &source = kv.lanes[from + g], &target = kv.lanes[to + g];
    const GatherJob job{.kv = kv, .from = source, .to = target, .kept = {kept.i32_row(g), static_cast<size_t>(count)}};
    for (const int32_t slot : job.kept) PKV_CHECK(slot >= 0 && slot < source.length, "an entry outside the lane");
    (source.dtype == target.dtype ? moved : converted).push_back(job);
    entries += count;
  }
  auto* positions = partials_.reserve<int32_t>(entries);
  for (std::vector<GatherJob>* jobs : {&moved, &converted}) {
    for (GatherJob& job : *jobs) {
      job.positions = positions;
      positions += job.kept.size();
    }
  }
  move_entries(moved);
  convert_entries(converted);
}

void CpuAttention::move_entries(std::span<GatherJob> jobs) {
  if (jobs.empty()) return;
  const auto lanes = static_cast<int64_t>(jobs.size());
  const KvView& kv = jobs.front().kv;
  int64_t entries = 0, staged_bytes = 0;
  for (const GatherJob& job : jobs) {
    entries += static_cast<int64_t>(job.kept.size());
    if (!streams(job)) staged_bytes += staging_bytes(job);
  }
  auto* staging = shared_.reserve<std::byte>(staged_bytes);
  for (GatherJob& job : jobs) {
    if (streams(job)) continue;
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
    if (begin == 0) job.move_positions();
  });
}

}  // namespace pkv
