// Rows of logits: tokens to choose from with their total mass, log-probabilities, comparisons. A block a row.
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ranking.cuh"

namespace pkv::gpu {
namespace {

constexpr int32_t kThreads = 512;
static_assert(kMostRanked <= kThreads);

__device__ int32_t thread_of_block() { return static_cast<int32_t>(threadIdx.x); }

// What ranking a row shares in a block.
struct RowRoom {
  RankRoom threshold;
  int32_t* flags = nullptr;    // [32]
  uint64_t* chosen = nullptr;  // [kMostRanked]
};
#define PKV_ROW_ROOM(name)                          \
  PKV_SHARED(int32_t, name##_histogram, kBins);     \
  PKV_SHARED(int32_t, name##_flags, kWarp);         \
  PKV_SHARED(uint64_t, name##_chosen, kMostRanked); \
  const RowRoom name { {name##_histogram, name##_flags}, name##_flags, name##_chosen }

// The `count` best of a row in order. All threads of the block.
__device__ void rank_row(const float* logits, int32_t vocabulary, int32_t count, const RowRoom& room,
                         RankedToken* best) {
  if (count == 0) return;
  const auto key = [logits](int32_t token) { return rank_key(logits[token]); };
  const Threshold threshold = find_threshold(vocabulary, count, room.threshold, key);
  for_each_chosen(vocabulary, threshold, room.flags, key, [&](int32_t i, int32_t token) {
    room.chosen[i] = uint64_t{~key(token)} << 32 | static_cast<uint32_t>(token);  // the best is the smallest
  });
  __syncthreads();
  if (thread_of_block() < count) {
    const uint64_t own = room.chosen[thread_of_block()];
    int32_t place = 0;
    for (int32_t i = 0; i < count; ++i) place += room.chosen[i] < own ? 1 : 0;
    const auto token = static_cast<int32_t>(own & 0xffffffffu);
    const float logit = std::isnan(logits[token]) ? -INFINITY : logits[token];
    best[place] = {token, logit, logit};
  }
  __syncthreads();
}

// The largest of a row; -infinity where there is none but NaN.
__device__ float largest_of(const float* logits, int32_t vocabulary) {
  float largest = -INFINITY;
  for (int32_t v = thread_of_block(); v < vocabulary; v += kThreads) largest = fmaxf(largest, logits[v]);
  return block_max(largest);
}

// The sum of exp((logit - largest) * scale) over a row: float32 exponentials, float64 sum.
__device__ double exp_sum(const float* logits, int32_t vocabulary, float largest, float scale) {
  double sum = 0;
  for (int32_t v = thread_of_block(); v < vocabulary; v += kThreads) sum += expf((logits[v] - largest) * scale);
  return block_sum(sum);
}

__global__ void __launch_bounds__(kThreads) sample_rows_kernel(SampleArgs args) {
  PKV_ROW_ROOM(room);
  const SampleRow& row = args.rows[blockIdx.x];
  if (row.changed >= 0) {
    if (thread_of_block() == 0) row.edits[row.changed] = row.change;
    __syncthreads();
  }
  if (row.ranked == 0) return;
  float* logits = args.logits.f32_row(blockIdx.x);
  const auto vocabulary = static_cast<int32_t>(args.logits.cols);
  for (int32_t i = thread_of_block(); i < row.edit_count; i += kThreads) {
    apply_edits(row.edits + i, 1, row.no_end != 0, logits);
  }
  __syncthreads();
  auto* ranked = row_as<RankedToken>(args.ranked, blockIdx.x);
  rank_row(logits, vocabulary, row.ranked, room, ranked);
  if (row.mass_scale != 0) {
    const double mass = exp_sum(logits, vocabulary, ranked[0].logit, row.mass_scale);
    if (thread_of_block() == 0) *args.mass.f32_row(blockIdx.x) = static_cast<float>(mass);
  }
  __syncthreads();
  for (int32_t i = thread_of_block(); i < row.edit_count; i += kThreads) restore_edits(row.edits + i, 1, logits);
  __syncthreads();
  if (thread_of_block() < row.ranked) {
    RankedToken& token = ranked[thread_of_block()];
    token.before = logits[token.token];
  }
}

__global__ void __launch_bounds__(kThreads) token_logprobs_kernel(LogprobArgs args) {
  PKV_ROW_ROOM(room);
  const LogprobRow row = args.rows[blockIdx.x];
  if (row.ranked < 0) return;
  const float* logits = args.logits.f32_row(blockIdx.x);
  const auto vocabulary = static_cast<int32_t>(args.logits.cols);
  const float largest = largest_of(logits, vocabulary);
  const double sum = exp_sum(logits, vocabulary, largest, 1.0f);
  if (thread_of_block() == 0) {
    *args.log_sum_exp.f32_row(blockIdx.x) = static_cast<float>(largest + log(sum));
    if (row.target >= 0) *args.target.f32_row(blockIdx.x) = logits[row.target];
  }
  rank_row(logits, vocabulary, row.ranked, room, row_as<RankedToken>(args.ranked, blockIdx.x));
}

// ---- compare_rows

// The first of the best tokens, and the log-sum-exp in float64. All threads of the block; `room` [kThreads].
struct Distribution {
  int32_t best = 0;
  double log_sum_exp = 0;
};
__device__ Distribution distribution_of(const float* logits, int32_t vocabulary, uint64_t* room) {
  uint64_t best = ~uint64_t{0};
  for (int32_t v = thread_of_block(); v < vocabulary; v += kThreads) {
    best = min(best, uint64_t{~rank_key(logits[v])} << 32 | static_cast<uint32_t>(v));
  }
  __syncthreads();  // whoever reads what was there
  room[thread_of_block()] = best;
  for (int32_t half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (thread_of_block() < half) {
      room[thread_of_block()] = min(room[thread_of_block()], room[thread_of_block() + half]);
    }
  }
  __syncthreads();
  const auto token = static_cast<int32_t>(room[0] & 0xffffffffu);
  const double largest = logits[token];
  double sum = 0;
  for (int32_t v = thread_of_block(); v < vocabulary; v += kThreads) sum += exp(logits[v] - largest);
  return {token, largest + log(block_sum(sum))};
}

__global__ void __launch_bounds__(kThreads)
    compare_rows_kernel(TensorView logits, const float* baseline, TensorView results) {
  PKV_SHARED(uint64_t, room, kThreads);
  const auto vocabulary = static_cast<int32_t>(logits.cols);
  const float* row = logits.f32_row(blockIdx.x);
  const Distribution base = distribution_of(baseline, vocabulary, room), own = distribution_of(row, vocabulary, room);
  double kl = 0;
  for (int32_t v = thread_of_block(); v < vocabulary; v += kThreads) {
    const double log_p = baseline[v] - base.log_sum_exp;
    kl += exp(log_p) * (log_p - (row[v] - own.log_sum_exp));
  }
  kl = block_sum(kl);
  // Rounding may leave it a little below.
  if (thread_of_block() == 0) {
    *row_as<RowComparison>(results, blockIdx.x) = {max(kl, 0.0), own.best == base.best ? 1 : 0, 0};
  }
}

LaunchShape block_a_row(const TensorView& logits) { return {.blocks = logits.rows, .threads = kThreads}; }

}  // namespace

void sample_rows(Stream& stream, const SampleArgs& args) {
  launch(stream, "sample_rows", block_a_row(args.logits), sample_rows_kernel, args);
}

void token_logprobs(Stream& stream, const LogprobArgs& args) {
  launch(stream, "token_logprobs", block_a_row(args.logits), token_logprobs_kernel, args);
}

void compare_rows(Stream& stream, const TensorView& logits, const TensorView& baseline, const TensorView& results) {
  launch(stream, "compare_rows", block_a_row(logits), compare_rows_kernel, logits, baseline.f32(), results);
}

}  // namespace pkv::gpu
