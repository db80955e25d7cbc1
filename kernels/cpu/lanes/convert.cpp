// Moves entries to lanes of another format. Where both lanes lie in the same pages, what comes is made page by page in
// scratch memory and goes to its place when all has been read.
#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/check.h"
#include "kernels/cpu/attention/attention.h"
#include "kernels/cpu/lanes/entry_elements.h"
#include "kernels/cpu/lanes/entry_writer.h"
#include "kernels/cpu/lanes/gather.h"
#include "kernels/cpu/parallel.h"

namespace pkv {
namespace {

// Entries that are made floats at a time.
constexpr int32_t kBlock = EntryWriter::kMostEntries;

// The entries [first, first + count) of what is kept that come to one page.
struct PageTask {
  const GatherJob* job = nullptr;
  int32_t first = 0;
  int32_t count = 0;
  std::byte* page = nullptr;  // where they are put: the page, or its image
};

void to_floats(const AttentionKernels& kernels, const uint16_t* from, float* to, int32_t count) {
  kernels.half_to_float(from, to, count);
}
void to_floats(const AttentionKernels& kernels, const Bfloat16* from, float* to, int32_t count) {
  kernels.bfloat16_to_float(from, to, count);
}
void to_floats(const AttentionKernels&, const float* from, float* to, int32_t count) { std::copy_n(from, count, to); }

// One thread's room.
struct Room {
  float* keys;     // [kBlock, head_dim]
  float* values;   // [kBlock, head_dim]
  std::byte* key;  // one, as it is stored, with room for eight elements more
  std::byte* writer;

  static int64_t bytes(int32_t head_dim) {
    return 2 * kBlock * head_dim * int64_t{4} + (head_dim + 8) * int64_t{4} + EntryWriter::scratch_bytes(head_dim);
  }
  Room(std::byte* memory, int32_t head_dim)
      : keys(reinterpret_cast<float*>(memory)),
        values(keys + kBlock * head_dim),
        key(reinterpret_cast<std::byte*>(values + kBlock * head_dim)),
        writer(key + (head_dim + 8) * 4) {}
};

template <typename Elements>
void read_entry(const AttentionKernels& kernels, const GatherJob& job, int32_t slot, const Room& room, int32_t index) {
  using Key = typename Elements::Key;
  using Value = typename Elements::Value;
  const PageLayout layout = page_layout(job.kv, job.from);
  const int32_t d = layout.head_dim(), slots = layout.slots(), place = slot % slots;
  const std::byte* page = job.kv.page(job.from, slot / slots);
  const auto* keys = reinterpret_cast<const Key*>(page) + place;
  auto* key = reinterpret_cast<Key*>(room.key);
  for (int32_t k = 0; k < d; ++k) key[k] = keys[k * slots];
  to_floats(kernels, key, room.keys + index * d, d);
  to_floats(kernels, reinterpret_cast<const Value*>(page + layout.value_at(place, 0)), room.values + index * d, d);
}

void read_entry(const AttentionKernels& kernels, const GatherJob& job, int32_t slot, const Room& room, int32_t index) {
  with_elements(job.from.dtype, [&](auto elements) {
    using Elements = decltype(elements);
    if constexpr (kIsCode<typename Elements::Key>) {
      PKV_CHECK(false, "entries of codes are not converted to others");
    } else {
      read_entry<Elements>(kernels, job, slot, room, index);
    }
  });
}

void convert_page(const AttentionKernels& kernels, const PageTask& task, const Room& room) {
  const GatherJob& job = *task.job;
  const PageLayout layout = page_layout(job.kv, job.to);
  const int32_t d = layout.head_dim();
  const EntryWriter writer(kernels, room.writer);
  for (int32_t place = 0; place < task.count; place += kBlock) {
    const int32_t count = std::min(kBlock, task.count - place);
    for (int32_t i = 0; i < count; ++i) {
      read_entry(kernels, job, job.kept[static_cast<size_t>(task.first + place + i)], room, i);
    }
    writer.write(layout, task.page, place,
                 {.keys = room.keys, .key_stride = d, .values = room.values, .value_stride = d, .count = count});
  }
}

// The first `count` entries of a page's image, and nothing else.
void copy_entries(const PageLayout& layout, const std::byte* image, std::byte* page, int32_t count) {
  const EntryPart &key = layout.format().key, &value = layout.format().value;
  const int32_t d = layout.head_dim();
  const auto copy = [&](int32_t offset, int32_t bytes) {
    std::memcpy(page + offset, image + offset, static_cast<size_t>(bytes));
  };
  for (int32_t k = 0; k < d; ++k) copy(layout.key_at(0, k), count * key.bytes(1));
  copy(layout.value_at(0, 0), count * value.bytes(d));
  for (int32_t k = 0; k <= key.scale_of(d - 1); ++k) {
    copy(layout.key_scale_at(0, k * key.scale_group), count * key.scale_bytes);
  }
  for (int32_t k = 0; k <= value.scale_of(d - 1); ++k) {
    copy(layout.value_scale_at(0, k * value.scale_group), count * value.scale_bytes);
  }
}

}  // namespace

void CpuAttention::convert_entries(std::span<GatherJob> jobs) {
  if (jobs.empty()) return;
  const KvView& kv = jobs.front().kv;
  std::vector<PageTask> tasks;
  int64_t entries = 0;
  for (const GatherJob& job : jobs) {
    const PageLayout layout = page_layout(kv, job.to);
    const auto count = static_cast<int32_t>(job.kept.size());
    for (int32_t first = 0; first < count; first += layout.slots()) {
      tasks.push_back({.job = &job,
                       .first = first,
                       .count = std::min(layout.slots(), count - first),
                       .page = kv.page(job.to, first / layout.slots())});
    }
    entries += count;
  }
  auto* images = shared_.reserve<std::byte>(static_cast<int64_t>(tasks.size()) * kv.page_bytes);
  for (PageTask& task : tasks) {
    if (task.job->in_place()) task.page = images + (&task - tasks.data()) * kv.page_bytes;
  }
  for (Scratch& scratch : per_thread_) scratch.reserve<std::byte>(Room::bytes(kv.head_dim));
  const auto pages = static_cast<int64_t>(tasks.size());
  const int64_t work = 8 * entries * kv.head_dim / std::max<int64_t>(1, pages);
  parallel_for(pool_, pages, work, [&](int64_t index, int32_t thread) {
    const Room room(per_thread_[thread].reserve<std::byte>(0), kv.head_dim);
    convert_page(kernels_, tasks[static_cast<size_t>(index)], room);
  });
  for (const GatherJob& job : jobs) job.move_positions();
  parallel_for(pool_, pages, work / 8, [&](int64_t index) {
    const PageTask& task = tasks[static_cast<size_t>(index)];
    if (!task.job->in_place()) return;
    const PageLayout layout = page_layout(kv, task.job->to);
    copy_entries(layout, task.page, kv.page(task.job->to, task.first / layout.slots()), task.count);
  });
}

}  // namespace pkv
