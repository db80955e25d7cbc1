// Moves entries to lanes of another format: as floats to a block's memory, a target page at a time, and from there
// rounded to the page. Where both lanes lie in the same pages one block has them all, in order: entries only become
// smaller and ascend, so what a page's entries came from lies in that page or later ones.
#include <algorithm>
#include <type_traits>

#include "kernels/cuda/convert.h"
#include "kernels/cuda/entry_writer.cuh"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/page_reader.cuh"

namespace pkv::gpu {
namespace {

constexpr int32_t kThreads = 256;

// The entries of a page between being read and being written.
struct PageRoom {
  float* keys = nullptr;    // [slots][head_dim + 1]
  float* values = nullptr;  // [slots][head_dim]
  int32_t* positions = nullptr;

  static constexpr int64_t bytes(int32_t slots, int32_t head_dim) {
    return int64_t{slots} * (2 * head_dim + 2) * static_cast<int64_t>(sizeof(float));
  }
  __device__ PageRoom(std::byte* memory, int32_t slots, int32_t head_dim)
      : keys(reinterpret_cast<float*>(memory)),
        values(keys + slots * (head_dim + 1)),
        positions(reinterpret_cast<int32_t*>(values + slots * head_dim)) {}
};

template <typename Entries>
__device__ void read_entries(const Entries& entries, const int32_t* slots, int32_t count, int32_t d,
                             const PageRoom& room) {
  const auto thread = static_cast<int32_t>(threadIdx.x);
  if constexpr (Entries::kCodes) {
    PKV_DEVICE_CHECK(false, "entries of codes are not converted to others");
  } else {
    for (int32_t i = thread; i < count * d; i += kThreads) {
      room.keys[i % count * (d + 1) + i / count] = entries.key(slots[i % count])[i / count];
      room.values[i] = entries.value(slots[i / d])[i % d];
    }
    for (int32_t i = thread; i < count; i += kThreads) room.positions[i] = entries.position(slots[i]).stored(0);
  }
}

// To the slots from `first` on.
template <typename Entries>
__device__ void write_entries(const Entries& entries, int32_t first, int32_t count, int32_t d, const PageRoom& room) {
  const auto thread = static_cast<int32_t>(threadIdx.x);
  for (int32_t i = thread / kWarp; i < count; i += kThreads / kWarp) {
    write_value(entries, first + i, room.values + i * d, d);
    round_key(entries, first + i, room.keys + i * (d + 1), d);
  }
  __syncthreads();
  for (int32_t i = thread; i < count * d; i += kThreads) {
    write_key(entries, first + i % count, i / count, room.keys[i % count * (d + 1) + i / count]);
  }
  for (int32_t i = thread; i < count; i += kThreads) entries.position(first + i).stored(0) = room.positions[i];
}

// Blocks (x, y) share the pages of lane y. `memory`: where a block's shared memory cannot hold a page, as much for each
// block.
__global__ void __launch_bounds__(kThreads)
    convert_kernel(KvView kv, int32_t from, int32_t to, TensorView kept, const int32_t* counts, int64_t room_bytes,
                   std::byte* memory) {
  PKV_DYNAMIC_SHARED(std::byte, shared);
  const auto g = static_cast<int32_t>(blockIdx.y);
  const Lane &source = kv.lanes[from + g], &target = kv.lanes[to + g];
  if (source.dtype == target.dtype) return;
  const bool in_place = source.first_page == target.first_page;
  if (in_place && blockIdx.x != 0) return;
  with_entries(kv, target, [&](const auto& written) {
    const int32_t slots = written.slots_of_page(), d = kv.head_dim;
    const PageRoom room(
        memory == nullptr ? shared : memory + (int64_t{blockIdx.y} * gridDim.x + blockIdx.x) * room_bytes, slots, d);
    const int32_t stride = in_place ? slots : slots * static_cast<int32_t>(gridDim.x);
    for (int32_t first = static_cast<int32_t>(blockIdx.x) * slots; first < counts[g]; first += stride) {
      const int32_t count = min(slots, counts[g] - first);
      with_entries(kv, source, [&](const auto& read) { read_entries(read, kept.i32_row(g) + first, count, d, room); });
      __syncthreads();
      write_entries(written, first, count, d, room);
      __syncthreads();  // the room is filled anew
    }
  });
}

}  // namespace

void convert_entries(Stream& stream, const KvView& kv, int32_t from, const TensorView& kept, const TensorView& counts,
                     int32_t to) {
  constexpr int64_t kBlocksOfLane = 32;
  const int64_t room_bytes = PageRoom::bytes(densest_slots(kv.head_dim, kv.page_bytes), kv.head_dim);
  const bool fits = room_bytes <= static_cast<int64_t>(stream.limits().shared_bytes);
  const auto run = [&](std::byte* memory) {
    launch(stream, "gather: convert",
           {.blocks = kBlocksOfLane,
            .threads = kThreads,
            .blocks_y = kept.rows,
            .shared_bytes = fits ? static_cast<size_t>(room_bytes) : 0},
           convert_kernel, kv, from, to, kept, counts.i32(), room_bytes, memory);
  };
  if (fits) return run(nullptr);
  const Scratch memory(stream, static_cast<size_t>(room_bytes * kBlocksOfLane * kept.rows));
  run(memory.as<std::byte>());
}

}  // namespace pkv::gpu
