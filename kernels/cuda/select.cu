// What a layer's lanes keep: the best columns of each, how many each has of the best of all, and how many reach a
// recall.
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ranking.cuh"

namespace pkv::gpu {
namespace {

constexpr int32_t kThreads = 512;

// A block a lane.
__global__ void __launch_bounds__(kThreads)
    select_top_kernel(TensorView scores, int32_t window, const int32_t* counts, TensorView kept) {
  PKV_SHARED(int32_t, histogram, kBins);
  PKV_SHARED(int32_t, room, kWarp);
  const auto past = static_cast<int32_t>(scores.cols) - window;
  const int32_t ranked = counts[blockIdx.x] - window;
  const float* row = scores.f32_row(blockIdx.x);
  int32_t* to = kept.i32_row(blockIdx.x);
  if (ranked > 0) {
    const auto key = [row](int32_t j) { return rank_key(row[j]); };
    const Threshold threshold = find_threshold(past, ranked, {histogram, room}, key);
    for_each_chosen(past, threshold, room, key, [to](int32_t i, int32_t j) { to[i] = j; });
  }
  for (auto i = static_cast<int32_t>(threadIdx.x); i < window; i += kThreads) to[ranked + i] = past + i;
}

}  // namespace

void select_top(Stream& stream, const TensorView& scores, int32_t window, const TensorView& counts,
                const TensorView& kept) {
  launch(stream, "select_top", {.blocks = scores.rows, .threads = kThreads}, select_top_kernel, scores, window,
         counts.i32(), kept);
}

}  // namespace pkv::gpu
