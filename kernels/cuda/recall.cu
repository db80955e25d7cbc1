// What a selection leaves of the attention, and how many entries reach a recall. Float64, added up one after another in
// the promised order by one thread of a block a lane; the others bring it the numbers.
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ranking.cuh"
#include "kernels/cuda/sort.cuh"

namespace pkv::gpu {
namespace {

constexpr int32_t kThreads = 256;

// Calls add(number) in order for number(0), ..., number(n - 1), by thread 0, until it returns false. All threads of the
// block; `room` [kThreads], `goes_on` [1].
template <typename Number, typename Add>
__device__ void in_order(int32_t n, float* room, int32_t* goes_on, const Number& number, const Add& add) {
  const auto thread = static_cast<int32_t>(threadIdx.x);
  __syncthreads();  // whoever looks at what was before
  for (int32_t first = 0; first < n; first += kThreads) {
    if (first + thread < n) room[thread] = number(first + thread);
    __syncthreads();
    if (thread == 0) {
      const int32_t count = min(kThreads, n - first);
      bool on = true;
      for (int32_t i = 0; i < count && on; ++i) on = add(room[i]);
      *goes_on = on ? 1 : 0;
    }
    __syncthreads();
    if (*goes_on == 0) return;
  }
}

__global__ void __launch_bounds__(kThreads)
    recall_kernel(TensorView mass, TensorView kept, const int32_t* counts, double* recalls) {
  PKV_SHARED(float, room, kThreads);
  PKV_SHARED(int32_t, goes_on, 1);
  const float* row = mass.f32_row(blockIdx.x);
  const int32_t* columns = kept.i32_row(blockIdx.x);
  double total = 0, carried = 0;
  in_order(
      static_cast<int32_t>(mass.cols), room, goes_on, [row](int32_t j) { return row[j]; },
      [&total](float number) {
        total += number;
        return true;
      });
  in_order(
      counts[blockIdx.x], room, goes_on, [row, columns](int32_t i) { return row[columns[i]]; },
      [&carried](float number) {
        carried += number;
        return true;
      });
  if (threadIdx.x == 0) recalls[blockIdx.x] = carried / total;
}

// The rank key of a column: that of +infinity in the window.
struct ColumnKeys {
  const float* scores = nullptr;
  int32_t past = 0;

  __device__ uint32_t operator()(int32_t column) const { return rank_key(column < past ? scores[column] : INFINITY); }
};

// What columns are put in order by: the best first, of equal ones the smaller column.
struct RankEntry {
  TensorView scores;
  int32_t past = 0;

  __device__ uint64_t operator()(int32_t lane, int32_t column) const {
    return sort_entry(~ColumnKeys{scores.f32_row(lane), past}(column), column);
  }
};

// A block a lane.
__global__ void __launch_bounds__(kThreads)
    count_for_recall_kernel(TensorView scores, TensorView mass, RecallShare share, const uint64_t* ranked,
                            int32_t* counts, double* recalls) {
  PKV_SHARED(float, room, kThreads);
  PKV_SHARED(int32_t, goes_on, 1);
  const auto columns = static_cast<int32_t>(scores.cols);
  const ColumnKeys keys{scores.f32_row(blockIdx.x), columns - share.window};
  const uint64_t* ranks = ranked + int64_t{blockIdx.x} * columns;
  const auto mass_at = [ranks, row = mass.f32_row(blockIdx.x)](int32_t rank) { return row[sorted_index(ranks[rank])]; };
  const uint32_t highest = rank_key(INFINITY);
  int32_t infinite = 0;
  for (auto j = static_cast<int32_t>(threadIdx.x); j < columns; j += kThreads) infinite += keys(j) == highest;
  infinite = block_sum(infinite);
  double total = 0, carried = 0;
  int32_t count = 0;
  in_order(columns, room, goes_on, mass_at, [&](float number) {
    total += number;
    return true;
  });
  const double surely_less = share.recall * total * (1 - 1e-12);  // spares a division an entry
  in_order(min(columns, share.largest_lane), room, goes_on, mass_at, [&](float number) {
    if (count >= infinite && !(carried < surely_less) && !(carried / total < share.recall)) return false;
    carried += number;
    ++count;
    return true;
  });
  if (threadIdx.x != 0) return;
  counts[blockIdx.x] = count;
  recalls[blockIdx.x] = carried / total;
}

}  // namespace

void recall(Stream& stream, const TensorView& mass, const TensorView& kept, const TensorView& counts,
            const TensorView& recalls) {
  launch(stream, "recall", {.blocks = mass.rows, .threads = kThreads}, recall_kernel, mass, kept, counts.i32(),
         recalls.f64());
}

void count_for_recall(Stream& stream, const TensorView& scores, const TensorView& mass, const RecallShare& share,
                      const TensorView& counts, const TensorView& recalls) {
  const auto columns = static_cast<int32_t>(scores.cols);
  const int64_t entries = scores.rows * scores.cols;
  const Scratch rooms(stream, 2 * sizeof(uint64_t) * static_cast<size_t>(entries));
  auto* const room = rooms.as<uint64_t>();
  const uint64_t* ranked =
      sort_lanes(stream, RankEntry{scores, columns - share.window}, scores.rows, columns, room, room + entries);
  launch(stream, "count_for_recall", {.blocks = scores.rows, .threads = kThreads}, count_for_recall_kernel, scores,
         mass, share, ranked, counts.i32(), recalls.f64());
}

}  // namespace pkv::gpu
