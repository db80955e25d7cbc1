// Times the paths of each use on work of the shapes of a small model, in this thread: what fits the caches, so that
// arithmetic is compared and not memory, which is the same for both.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cpu/attention/attention_kernels.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/linear/linear.h"
#include "kernels/cpu/linear/packed_weight.h"
#include "kernels/cpu/path_choice.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/thread_pool.h"

namespace pkv {
namespace {

constexpr int32_t kRounds = 7;

// The shortest of some rounds each, in turns, after one that wakes the units and fills the caches. What interrupts a
// round, or lowers the clock for a while, hits both or is left out.
template <typename Higher, typename Lower>
PathTime measure(const Higher& higher, const Lower& lower) {
  const auto seconds = [](const auto& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  constexpr double kNever = std::numeric_limits<double>::infinity();
  PathTime best{.higher = kNever, .lower = kNever};
  higher();
  lower();
  for (int32_t round = 0; round < kRounds; ++round) {
    best.higher = std::min(best.higher, seconds(higher));
    best.lower = std::min(best.lower, seconds(lower));
  }
  return best;
}

// Numbers of ordinary size: some units are slower for tiny or infinite ones.
std::vector<float> ordinary_floats(size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = std::sin(static_cast<float>(i));
  return values;
}

constexpr int64_t kOutputs = 128;
constexpr int64_t kInputs = 512;
constexpr int64_t kPromptRows = 96;
constexpr int64_t kDecodeRows = 4;

// A matrix of q4_0 blocks: a scale of 1/16 in half precision, then 32 codes.
std::vector<uint8_t> q4_0_blocks() {
  constexpr size_t kBlockBytes = 18;
  std::vector<uint8_t> blocks(kOutputs * kInputs / 32 * kBlockBytes);
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<uint8_t>(i * 37);
  for (size_t block = 0; block < blocks.size(); block += kBlockBytes) {
    blocks[block] = 0x00;
    blocks[block + 1] = 0x2c;
  }
  return blocks;
}

// Whether two paths agree but for rounding to bfloat16, which is less than a hundredth of the largest.
bool agree(std::span<const float> a, std::span<const float> b) {
  float largest = 0, apart = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i])) return false;
    largest = std::max(largest, std::abs(b[i]));
    apart = std::max(apart, std::abs(a[i] - b[i]));
  }
  return apart <= 0.03f * largest;
}

// One product of a phase on two paths.
PathTime measure_products(const PackedView& weight, int64_t rows, Phase phase, const IsaFeatures& higher,
                          const IsaFeatures& lower, ThreadPool& pool) {
  std::vector<float> x = ordinary_floats(rows * kInputs), out(rows * kOutputs), lower_out(out.size());
  const auto view = [rows](std::vector<float>& values, int64_t cols) {
    return TensorView{values.data(), DType::kF32, rows, cols, cols};
  };
  LinearRunner higher_runner(select_linear_kernels(highest_paths(higher)), false, pool);
  LinearRunner lower_runner(select_linear_kernels(highest_paths(lower)), false, pool);
  PathTime time = measure([&] { higher_runner.run(view(x, kInputs), weight, false, phase, view(out, kOutputs)); },
                          [&] { lower_runner.run(view(x, kInputs), weight, false, phase, view(lower_out, kOutputs)); });
  time.differs = !agree(out, lower_out);
  return time;
}

#if defined(__x86_64__)
constexpr int32_t kHeadDim = 64;
constexpr int32_t kPanels = 4;

// Panels of query rows against one tile of slots, as a prompt's attention runs them.
class AttentionSample {
 public:
  explicit AttentionSample(const PanelKernels& kernels)
      : kernels_(kernels),
        entries_(2 * kTileSlots * kHeadDim, 0x2e00),
        rows_(ordinary_floats(kMaxPanelRows * kHeadDim)) {
    queries_ = memory_.reserve<float>(kQueries + 2 * kOperand + kScores + kSums);
    keys_ = queries_ + kQueries;
    values_ = keys_ + kOperand;
    scores_ = values_ + kOperand;
    sums_ = scores_ + kScores;
  }

  void run() {
    const LanePages pages{.pool = reinterpret_cast<const std::byte*>(entries_.data()),
                          .page_ids = &page_id_,
                          .page_bytes = static_cast<int64_t>(entries_.size() * sizeof(uint16_t)),
                          .value_offset = kTileSlots * kHeadDim * static_cast<int32_t>(sizeof(uint16_t)),
                          .slots = kTileSlots,
                          .head_dim = kHeadDim,
                          .format = KvDtype::kF16};
    const float* rows[kMaxPanelRows];
    int32_t limits[kMaxPanelRows];
    for (int32_t r = 0; r < kMaxPanelRows; ++r) {
      rows[r] = rows_.data() + int64_t{r} * kHeadDim;
      limits[r] = r < kernels_.rows ? kTileSlots : 0;
    }
    std::fill_n(sums_, kSums, 0.0f);
    kernels_.pack_keys(pages, 0, kTileSlots, /*place=*/0, keys_);
    kernels_.pack_values(pages, 0, kTileSlots, /*place=*/0, values_);
    // As many rows on every path.
    for (int32_t done = 0; done < kPanels * kMaxPanelRows; done += kernels_.rows) {
      kernels_.pack_queries(rows, kernels_.rows, kHeadDim, 0.125f, queries_);
      kernels_.attend({.queries = queries_,
                       .keys = keys_,
                       .values = values_,
                       .limits = limits,
                       .head_dim = kHeadDim,
                       .count = kTileSlots,
                       .scores = scores_},
                      {.max = sums_ + kAcc, .sum = sums_ + kAcc + kMaxPanelRows, .acc = sums_});
    }
  }

  // Of the first row, the same query on every path.
  std::vector<float> first_output() const {
    std::vector<float> output(sums_, sums_ + kHeadDim);
    for (float& value : output) value /= sums_[kAcc + kMaxPanelRows];
    return output;
  }

 private:
  static constexpr int64_t kQueries = kMaxPanelRows * padded_dim(kHeadDim);
  static constexpr int64_t kOperand = kTileSlots * (kHeadDim + kMaxPanelCols);
  static constexpr int64_t kScores = 2 * kMaxPanelRows * kScoreStride;
  static constexpr int64_t kAcc = kMaxPanelRows * padded_dim(kHeadDim);
  static constexpr int64_t kSums = kAcc + 2 * kMaxPanelRows;

  const PanelKernels& kernels_;
  const int32_t page_id_ = 0;
  std::vector<uint16_t> entries_;
  std::vector<float> rows_;
  Scratch memory_;
  float *queries_, *keys_, *values_, *scores_, *sums_;
};

PathTime measure_attention(const PanelKernels& higher_kernels, const PanelKernels& lower_kernels) {
  AttentionSample higher(higher_kernels), lower(lower_kernels);
  PathTime time = measure([&] { higher.run(); }, [&] { lower.run(); });
  time.differs = !agree(higher.first_output(), lower.first_output());
  return time;
}
#endif

}  // namespace

PathTimes measure_paths([[maybe_unused]] const IsaFeatures& features) {
  PathTimes times;
#if defined(__x86_64__)
  ThreadPool pool(1);
  WeightArena arena;
  const std::vector<uint8_t> blocks = q4_0_blocks();
  const auto weight =
      pack_weight({.data = blocks.data(), .type = WeightType::kQ4_0, .rows = kOutputs, .cols = kInputs}, arena, pool);
  if (!weight.ok()) return times;  // no memory for it; loading a model will say so
  const PackedView& view = (*weight)->view();
  IsaFeatures avx512 = features;
  avx512.amx = avx512.bf16 = avx512.vnni = false;
  const PanelKernels& avx512_panels = PathTable<AttentionKernels, Isa::kAvx512>::kernels.panel;
  const PanelKernels& bf16_panels = PathTable<PanelKernels, Isa::kAvx512Bf16>::kernels;
  IsaFeatures no_tiles = features;
  no_tiles.amx = false;
  if (features.vnni) {
    times.decode_products = measure_products(view, kDecodeRows, Phase::kDecode, no_tiles, avx512, pool);
  }
  if (!features.bf16) return times;
  times.prompt_products = measure_products(view, kPromptRows, Phase::kPrefill, no_tiles, avx512, pool);
  times.prompt_attention = measure_attention(bf16_panels, avx512_panels);
  if (!features.amx) return times;
  const CpuPaths chosen = faster_paths(no_tiles, times);
  times.tile_products = measure_products(view, kPromptRows, Phase::kPrefill, features, chosen.prompt_products, pool);
  times.tile_attention = measure_attention(PathTable<PanelKernels, Isa::kAmxBf16>::kernels,
                                           chosen.prompt_attention.bf16 ? bf16_panels : avx512_panels);
#endif
  return times;
}

}  // namespace pkv
