// Moves entries between slots, within a lane or from one to another. Where nothing is overwritten before it is read the
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

struct GatherJob {
  const KvView& kv;
  const Lane& from;
  const Lane& to;
  std::span<const int32_t> kept;
  bool in_place = false;
  float* staging = nullptr;  // room for all entries, or nullptr: stream

  // An entry that stays where it is.
  bool stays(size_t i) const { return in_place && kept[i] == static_cast<int32_t>(i); }
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
    std::byte* entry = reinterpret_cast<std::byte*>(job.staging) + static_cast<int64_t>(i) * entry_bytes;
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

void gather_positions(const GatherJob& job, int32_t* staging) {
  const int32_t slots = page_layout(job.kv, job.from).slots();
  for (size_t i = 0; i < job.kept.size(); ++i) {
    staging[i] = job.kv.page_positions(job.from, job.kept[i] / slots)[job.kept[i] % slots];
  }
  for (int32_t first = 0; first < static_cast<int32_t>(job.kept.size()); first += slots) {
    const int32_t count = std::min(slots, static_cast<int32_t>(job.kept.size()) - first);
    std::copy_n(staging + first, count, job.kv.page_positions(job.to, first / slots));
  }
}

}  // namespace

void CpuAttention::gather(const KvView& kv, int32_t from, const TensorView& kept, int32_t count, int32_t to) {
  PKV_CHECK(count >= 0 && count <= kept.cols, "as many slots as there are to gather");
  PKV_CHECK(kv.lanes[from].dtype == kv.lanes[to].dtype, "entries move between lanes of one format");
  GatherJob job{.kv = kv,
                .from = kv.lanes[from],
                .to = kv.lanes[to],
                .kept = {kept.i32(), static_cast<size_t>(count)},
                .in_place = from == to};
  // In place, slot i is written before slot kept[j] is read for i < j: safe where no entry moves to a later slot.
  bool streams = true;
  for (size_t i = 0; i < job.kept.size(); ++i) {
    PKV_CHECK(job.kept[i] >= 0 && job.kept[i] < job.from.length, "an entry outside the lane");
    streams = streams && (!job.in_place || job.kept[i] >= static_cast<int32_t>(i));
  }
  const int64_t elements = static_cast<int64_t>(count) * 2 * kv.head_dim;
  const int64_t entry_bytes = page_layout(kv, job.from).entry_bytes();
  constexpr int64_t kFloat = sizeof(float);
  if (!streams) job.staging = shared_.reserve((count * entry_bytes + kFloat - 1) / kFloat);
  auto* positions = reinterpret_cast<int32_t*>(partials_.reserve(count));
  const int64_t tasks = (kv.head_dim + kDimsPerTask - 1) / kDimsPerTask;
  parallel_for(pool_, tasks, elements / std::max<int64_t>(tasks, 1), [&](int64_t task) {
    const int32_t begin = static_cast<int32_t>(task) * kDimsPerTask;
    const int32_t end = std::min(kv.head_dim, begin + kDimsPerTask);
    with_elements(job.from.dtype, [&](auto types) { gather_dims<decltype(types)>(job, begin, end); });
    if (task == 0) gather_positions(job, positions);
  });
}

}  // namespace pkv
