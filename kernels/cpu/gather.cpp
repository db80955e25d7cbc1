// Moves entries between slots, within a lane or from one to another. Where nothing is overwritten before it is read the
// entries stream to their places; otherwise all of them go through scratch memory.
#include <algorithm>
#include <cstring>

#include "kernels/check.h"
#include "kernels/cpu/attention.h"

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
template <typename T>
struct EntryPlace {
  T* key;
  int64_t key_stride;
  T* value;
};

template <typename T>
class LanePlaces {
 public:
  LanePlaces(const KvView& kv, const Lane& lane)
      : kv_(kv), lane_(lane), slots_(kv.layout(lane).slots()), value_offset_(kv.layout(lane).value_offset()) {}
  EntryPlace<T> at(int32_t slot) const {
    std::byte* page = kv_.page(lane_, slot / slots_);
    const int32_t place = slot % slots_;
    return {.key = reinterpret_cast<T*>(page) + place,
            .key_stride = slots_,
            .value = reinterpret_cast<T*>(page + value_offset_) + static_cast<int64_t>(place) * kv_.head_dim};
  }

 private:
  const KvView& kv_;
  const Lane& lane_;
  int32_t slots_;
  int32_t value_offset_;
};

template <typename T>
void gather_dims(const GatherJob& job, int32_t begin, int32_t end) {
  const LanePlaces<T> from(job.kv, job.from);
  const LanePlaces<T> to(job.kv, job.to);
  const int32_t d = job.kv.head_dim;
  const auto staged = [&](size_t i) {
    T* entry = reinterpret_cast<T*>(job.staging) + static_cast<int64_t>(i) * 2 * d;
    return EntryPlace<T>{.key = entry, .key_stride = 1, .value = entry + d};
  };
  const auto move = [&](const EntryPlace<T>& source, const EntryPlace<T>& target) {
    for (int32_t k = begin; k < end; ++k) target.key[k * target.key_stride] = source.key[k * source.key_stride];
    std::memcpy(target.value + begin, source.value + begin, (end - begin) * sizeof(T));
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
  const int32_t slots = job.kv.layout(job.from).slots();
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
  if (!streams) job.staging = shared_.reserve(elements * kv_element_bytes(job.from.dtype) / sizeof(float));
  auto* positions = reinterpret_cast<int32_t*>(partials_.reserve(count));
  const int64_t tasks = (kv.head_dim + kDimsPerTask - 1) / kDimsPerTask;
  for_tasks(tasks, elements >= kMinParallelElements, [&](int64_t task, int32_t) {
    const int32_t begin = static_cast<int32_t>(task) * kDimsPerTask;
    const int32_t end = std::min(kv.head_dim, begin + kDimsPerTask);
    if (job.from.dtype == KvDtype::kF16) {
      gather_dims<uint16_t>(job, begin, end);
    } else {
      gather_dims<float>(job, begin, end);
    }
    if (task == 0) gather_positions(job, positions);
  });
}

}  // namespace pkv
