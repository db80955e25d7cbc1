// How many entries each lane of a layer keeps where a total is divided by their scores.
//
// Entries have a rank key (ranking.cuh); the `always` best of a lane have that of +infinity, which no key is above. Of
// a threshold K a lane takes all keys from K on, but at most `each`: that is min(each, max(always, how many there
// are)), for the always best are the first of its own ranking. The layer's threshold is the largest at which its lanes
// together take as many as there are to divide. It is found digit by digit; then a lane takes what is above it, and of
// what has that very key the smaller lanes take first.
#include <algorithm>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ranking.cuh"

namespace pkv::gpu {
namespace {

constexpr int32_t kThreads = 512;
constexpr int32_t kBinsOfThread = kBins / kThreads;

struct Division {
  int32_t window = 0;
  int32_t past = 0;  // columns before the window
  int32_t always = 0;
  int32_t each = 0;
  int32_t wanted = 0;  // of all lanes together, besides their windows

  __device__ int32_t taken(uint32_t threshold, int32_t from_threshold_on) const {
    return threshold > rank_key(INFINITY) ? 0 : min(each, max(always, from_threshold_on));
  }
};

Division division_of(const TensorView& scores, const LayerShare& share) {
  const auto past = static_cast<int32_t>(scores.cols) - share.window;
  const int32_t each = std::min(share.largest_lane - share.window, past);
  const int64_t left = share.total - scores.rows * share.window;
  return {.window = share.window,
          .past = past,
          .always = std::min(share.smallest_lane - share.window, past),
          .each = each,
          .wanted = static_cast<int32_t>(std::min<int64_t>(left, scores.rows * each))};
}

// What one digit is found from, and what comes of it.
struct Search {
  int32_t* from_bin_on = nullptr;  // [lanes][kBins]: a lane's keys from the bin's least on
  int32_t* above = nullptr;        // [lanes]: above all keys that begin with the digits found
  uint32_t* prefix = nullptr;      // the digits found
};

// A block a lane.
__global__ void __launch_bounds__(kThreads)
    count_bins_kernel(TensorView scores, Division division, int32_t index, Search search) {
  PKV_SHARED(int32_t, histogram, kBins);
  PKV_SHARED(int32_t, parts, kThreads);
  const auto thread = static_cast<int32_t>(threadIdx.x);
  count_digit(division.past, index, index == 0 ? 0 : *search.prefix, histogram,
              [row = scores.f32_row(blockIdx.x)](int32_t j) { return rank_key(row[j]); });
  int32_t own = 0;
  for (int32_t i = 0; i < kBinsOfThread; ++i) own += histogram[thread * kBinsOfThread + i];
  parts[thread] = own;
  __syncthreads();
  int32_t from_bin_on = index == 0 ? 0 : search.above[blockIdx.x];
  for (int32_t t = thread + 1; t < kThreads; ++t) from_bin_on += parts[t];
  for (int32_t bin = (thread + 1) * kBinsOfThread - 1; bin >= thread * kBinsOfThread; --bin) {
    from_bin_on += histogram[bin];
    search.from_bin_on[int64_t{blockIdx.x} * kBins + bin] = from_bin_on;
  }
}

// One block: the last bin from whose least key on the lanes take enough.
__global__ void __launch_bounds__(kThreads)
    find_digit_kernel(Division division, int32_t index, int32_t lanes, Search search) {
  PKV_SHARED(int32_t, found, 1);
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const Digit digit = digit_of(index);
  const uint32_t prefix = index == 0 ? 0 : *search.prefix;
  if (thread == 0) *found = 0;
  __syncthreads();
  for (int32_t bin = thread; bin < 1 << digit.bits; bin += kThreads) {
    const uint32_t least = (prefix << digit.bits | static_cast<uint32_t>(bin)) << digit.shift;
    int64_t taken = 0;
    for (int32_t g = 0; g < lanes; ++g) taken += division.taken(least, search.from_bin_on[int64_t{g} * kBins + bin]);
    if (taken >= division.wanted) atomicMax(found, bin);
  }
  __syncthreads();
  for (int32_t g = thread; g < lanes; g += kThreads) {
    const int32_t* of_lane = search.from_bin_on + int64_t{g} * kBins;
    const int32_t before = index == 0 ? 0 : search.above[g];
    search.above[g] = *found + 1 < 1 << digit.bits ? of_lane[*found + 1] : before;
  }
  if (thread == 0) *search.prefix = prefix << digit.bits | static_cast<uint32_t>(*found);
}

// One thread, for the lanes come one after another.
__global__ void divide_kernel(Division division, int32_t lanes, Search search, int32_t* counts) {
  const uint32_t threshold = *search.prefix;
  const int32_t bin = static_cast<int32_t>(threshold & ((1u << digit_of(kDigits - 1).bits) - 1));
  int32_t left = division.wanted;
  for (int32_t g = 0; g < lanes; ++g) left -= division.taken(threshold + 1, search.above[g]);
  for (int32_t g = 0; g < lanes; ++g) {
    const int32_t better = division.taken(threshold + 1, search.above[g]);
    const int32_t equal = division.taken(threshold, search.from_bin_on[int64_t{g} * kBins + bin]) - better;
    const int32_t more = min(left, equal);
    counts[g] = division.window + better + more;
    left -= more;
  }
}

__global__ void set_counts_kernel(int32_t* counts, int32_t lanes, int32_t count) {
  for (auto g = static_cast<int32_t>(threadIdx.x); g < lanes; g += kThreads) counts[g] = count;
}

}  // namespace

void share_layer(Stream& stream, const TensorView& scores, const LayerShare& share, const TensorView& counts) {
  const auto lanes = static_cast<int32_t>(scores.rows);
  const Division division = division_of(scores, share);
  if (division.wanted == 0) {
    launch(stream, "share_layer", {.blocks = 1, .threads = kThreads}, set_counts_kernel, counts.i32(), lanes,
           share.window);
    return;
  }
  const auto words = static_cast<size_t>(lanes) * (kBins + 1) + 1;
  const Scratch scratch(stream, words * sizeof(int32_t));
  Search search{.from_bin_on = scratch.as<int32_t>()};
  search.above = search.from_bin_on + int64_t{lanes} * kBins;
  search.prefix = reinterpret_cast<uint32_t*>(search.above + lanes);
  for (int32_t index = 0; index < kDigits; ++index) {
    launch(stream, "share_layer counts", {.blocks = lanes, .threads = kThreads}, count_bins_kernel, scores, division,
           index, search);
    launch(stream, "share_layer digit", {.blocks = 1, .threads = kThreads}, find_digit_kernel, division, index, lanes,
           search);
  }
  launch(stream, "share_layer", {.blocks = 1, .threads = 1}, divide_kernel, division, lanes, search, counts.i32());
}

}  // namespace pkv::gpu
