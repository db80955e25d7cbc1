// Moves entries between slots, within lanes or from some to others of the same format (convert.cu has the rest). A
// block has some dimensions of a lane, which no other block touches, and moves them in batches: read a batch, meet,
// write it. Where no entry moves to a later slot, batches may follow each other in place; otherwise a batch is
// everything, of as many dimensions at a time as there is room for.
#include <algorithm>
#include <type_traits>

#include "kernels/cuda/convert.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/page_reader.cuh"

namespace pkv::gpu {
namespace {

constexpr int32_t kThreads = 256;
constexpr int32_t kDims = 16;  // of a block

// One lane's move.
struct Move {
  const int32_t* kept = nullptr;  // [count]
  int32_t count = 0;
  bool in_place = false;
};

// Whether entries may be written while later ones are still to be read. All threads of the block.
__device__ bool streams(const Move& move) {
  if (!move.in_place) return true;
  int32_t only_forward = 1;
  for (auto i = static_cast<int32_t>(threadIdx.x); i < move.count; i += kThreads) {
    if (move.kept[i] < i) only_forward = 0;
  }
  return __syncthreads_and(only_forward) != 0;
}

// Room for numbers that are between being read and being written.
struct Staging {
  std::byte* memory = nullptr;
  int32_t bytes = 0;
};

// Moves `width` numbers of every entry: number i of entry e is source(e)[i] and becomes target(e)[i].
template <typename Stored, typename Source, typename Target>
__device__ void move_numbers(const Move& move, int32_t width, bool in_batches, const Staging& staging,
                             const Source& source, const Target& target) {
  auto* const room = reinterpret_cast<Stored*>(staging.memory);
  const int32_t capacity = staging.bytes / static_cast<int32_t>(sizeof(Stored));
  const int32_t batch = in_batches ? min(move.count, capacity / width) : move.count;
  const int32_t at_once = in_batches ? width : min(width, capacity / max(batch, 1));
  for (int32_t first = 0; first < move.count; first += batch) {
    const int32_t entries = min(batch, move.count - first);
    for (int32_t begin = 0; begin < width; begin += at_once) {
      const int32_t end = min(width, begin + at_once);
      for (auto e = static_cast<int32_t>(threadIdx.x); e < entries; e += kThreads) {
        const auto from = source(move.kept[first + e]);
        for (int32_t i = begin; i < end; ++i) room[(i - begin) * entries + e] = from.stored(i);
      }
      __syncthreads();
      for (auto e = static_cast<int32_t>(threadIdx.x); e < entries; e += kThreads) {
        const auto to = target(first + e);
        for (int32_t i = begin; i < end; ++i) to.stored(i) = room[(i - begin) * entries + e];
      }
      __syncthreads();
    }
  }
}

// Block (x, y): dimensions [x * kDims, (x + 1) * kDims) of lane y, where x is 0 also its scales and positions. `room`:
// where a block's shared memory cannot hold one number of every entry, as much memory for each block.
__global__ void __launch_bounds__(kThreads)
    gather_kernel(KvView kv, int32_t from, int32_t to, TensorView kept, const int32_t* counts, int32_t shared_bytes,
                  std::byte* room) {
  PKV_DYNAMIC_SHARED(std::byte, shared);
  const auto g = static_cast<int32_t>(blockIdx.y);
  if (kv.lanes[from + g].dtype != kv.lanes[to + g].dtype) return;
  const Move move{kept.i32_row(g), counts[g], from == to};
  const bool in_batches = streams(move);
  Staging staging{shared, shared_bytes};
  const auto all_bytes = static_cast<int32_t>(kept.cols * sizeof(float));
  if (!in_batches && all_bytes > shared_bytes) {
    staging = {room + (int64_t{blockIdx.y} * gridDim.x + blockIdx.x) * all_bytes, all_bytes};
  }
  const int32_t begin = static_cast<int32_t>(blockIdx.x) * kDims, width = min(kDims, kv.head_dim - begin);
  with_entries(kv, kv.lanes[from + g], [&](const auto& source) {
    using Entries = std::remove_cvref_t<decltype(source)>;
    constexpr int32_t kPiece = Entries::kValuesOfPiece;
    const Entries target(kv, kv.lanes[to + g]);
    const auto move_pieces = [&](int32_t pieces, const auto& pieces_of) {
      using Stored = std::remove_cvref_t<decltype(pieces_of(source, 0).stored(0))>;
      move_numbers<Stored>(
          move, pieces, in_batches, staging, [&](int32_t slot) { return pieces_of(source, slot); },
          [&](int32_t slot) { return pieces_of(target, slot); });
    };
    move_pieces(width, [=](const Entries& entries, int32_t slot) { return entries.stored_key(slot).from(begin); });
    move_pieces(width / kPiece,
                [=](const Entries& entries, int32_t slot) { return entries.stored_value(slot).from(begin / kPiece); });
    if (begin != 0) return;
    if constexpr (Entries::kCodes) {
      move_pieces(1, [](const Entries& entries, int32_t slot) { return entries.key_scale(slot); });
      move_pieces(blocks_for(kv.head_dim, CodedValue::kCodesOfScale),
                  [](const Entries& entries, int32_t slot) { return entries.value_scales(slot); });
    }
    move_pieces(1, [](const Entries& entries, int32_t slot) { return entries.position(slot); });
  });
}

}  // namespace

void gather(Stream& stream, const KvView& kv, int32_t from, const TensorView& kept, const TensorView& counts,
            int32_t to) {
  constexpr size_t kEnough = 64 << 10;  // more of it costs more blocks at a time than it saves batches
  const size_t shared = std::min(kEnough, stream.limits().shared_bytes);
  const size_t all = static_cast<size_t>(kept.cols) * sizeof(float);
  const int64_t blocks = blocks_for(kv.head_dim, kDims);
  const LaunchShape shape{.blocks = blocks, .threads = kThreads, .blocks_y = kept.rows, .shared_bytes = shared};
  const auto run = [&](std::byte* room) {
    launch(stream, "gather", shape, gather_kernel, kv, from, to, kept, counts.i32(), static_cast<int32_t>(shared),
           room);
  };
  if (from != to) {
    run(nullptr);
    return convert_entries(stream, kv, from, kept, counts, to);
  }
  if (all <= shared) return run(nullptr);
  const Scratch room(stream, all * static_cast<size_t>(blocks * kept.rows));
  run(room.as<std::byte>());
}

}  // namespace pkv::gpu
