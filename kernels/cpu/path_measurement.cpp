// Times the paths of each use on work of the shapes of a small model, in this thread: what fits the caches, so that
// arithmetic is compared and not memory, which is the same for both.
#include "kernels/cpu/path_measurement.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cpu/linear/linear.h"
#include "kernels/cpu/linear/packed_weight.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/quant.h"

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

// Numbers from -1 to 1, no two alike: ordinary ones, as some units are slower for tiny or infinite ones.
std::vector<float> ordinary_floats(int64_t count) {
  std::minstd_rand random(1);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(random()) / static_cast<float>(1 << 30) - 1;
  return values;
}

// Whether two paths agree. Rounding to bfloat16 or to 8 bits moves a result by less than a hundredth of the largest;
// three are allowed.
bool agree(std::span<const float> a, std::span<const float> b) {
  float largest = 0, apart = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i])) return false;
    largest = std::max(largest, std::abs(b[i]));
    apart = std::max(apart, std::abs(a[i] - b[i]));
  }
  return apart <= 0.03f * largest;
}

constexpr int64_t kOutputs = 128;
constexpr int64_t kInputs = 768;
constexpr int64_t kPromptRows = 96;
constexpr int64_t kDecodeRows = 4;

// A matrix of q4_0 blocks: a scale of 1/16 in half precision, then 32 codes.
std::vector<uint8_t> q4_0_blocks() {
  constexpr size_t kBlockBytes = 18;
  std::minstd_rand random(2);
  std::vector<uint8_t> blocks(kOutputs * kInputs / 32 * kBlockBytes);
  for (uint8_t& code : blocks) code = static_cast<uint8_t>(random() >> 8);
  for (size_t block = 0; block < blocks.size(); block += kBlockBytes) {
    blocks[block] = 0x00;
    blocks[block + 1] = 0x2c;
  }
  return blocks;
}

LinearKernels without_8_bits(CpuPaths paths) {
  paths.tolerant_in_8_bits = false;
  return select_linear_kernels(paths);
}

constexpr int32_t kHeadDim = 64;
constexpr int32_t kAttentionRows = 96;  // whole panels on every path

// Rows of queries against one tile of slots.
class AttentionSample {
 public:
  explicit AttentionSample(const PanelKernels& kernels)
      : kernels_(kernels), entries_(2 * kTileSlots * kHeadDim), rows_(ordinary_floats(kAttentionRows * kHeadDim)) {
    std::ranges::transform(ordinary_floats(static_cast<int64_t>(entries_.size())), entries_.begin(), float_to_half);
    queries_ = memory_.reserve<float>(kQueries + 2 * kOperand + kScores + kSums);
    keys_ = queries_ + kQueries;
    values_ = keys_ + kOperand;
    scores_ = values_ + kOperand;
    acc_ = scores_ + kScores;
    max_ = acc_ + kAttentionRows * kHeadDim;
    sum_ = max_ + kAttentionRows;
  }

  void run() {
    const LanePages pages{.pool = reinterpret_cast<const std::byte*>(entries_.data()),
                          .page_ids = &page_id_,
                          .page_bytes = static_cast<int64_t>(entries_.size() * sizeof(uint16_t)),
                          .value_offset = kTileSlots * kHeadDim * static_cast<int32_t>(sizeof(uint16_t)),
                          .slots = kTileSlots,
                          .head_dim = kHeadDim,
                          .format = KvDtype::kF16};
    std::fill_n(acc_, kSums, 0.0f);
    std::fill_n(max_, kAttentionRows, -std::numeric_limits<float>::infinity());
    kernels_.pack_keys(pages, 0, kTileSlots, /*place=*/0, keys_);
    kernels_.pack_values(pages, 0, kTileSlots, /*place=*/0, values_);
    for (int32_t first = 0; first < kAttentionRows; first += kernels_.rows) {
      const float* rows[kMaxPanelRows];
      int32_t limits[kMaxPanelRows];
      for (int32_t r = 0; r < kernels_.rows; ++r) {
        rows[r] = rows_.data() + int64_t{first + r} * kHeadDim;
        limits[r] = kTileSlots - (first + r) % 4 * 33;  // some row of every panel sees the whole tile
      }
      kernels_.pack_queries(rows, kernels_.rows, kHeadDim, /*scale=*/1.0f, queries_);
      kernels_.attend({.queries = queries_,
                       .keys = keys_,
                       .values = values_,
                       .limits = limits,
                       .head_dim = kHeadDim,
                       .count = kTileSlots,
                       .scores = scores_},
                      {.max = max_ + first, .sum = sum_ + first, .acc = acc_ + first * kHeadDim});
    }
  }

  // Of every row.
  std::vector<float> output() const {
    std::vector<float> output(acc_, acc_ + kAttentionRows * kHeadDim);
    for (size_t i = 0; i < output.size(); ++i) output[i] /= sum_[i / kHeadDim];
    return output;
  }

 private:
  static_assert(padded_dim(kHeadDim) == kHeadDim);
  static constexpr int64_t kQueries = kMaxPanelRows * kHeadDim;
  static constexpr int64_t kOperand = kTileSlots * (kHeadDim + kMaxPanelCols);
  static constexpr int64_t kScores = 2 * kMaxPanelRows * kScoreStride;
  static constexpr int64_t kSums = kAttentionRows * (kHeadDim + 2);

  const PanelKernels& kernels_;
  const int32_t page_id_ = 0;
  std::vector<uint16_t> entries_;
  std::vector<float> rows_;
  Scratch memory_;
  float *queries_, *keys_, *values_, *scores_, *acc_, *max_, *sum_;
};

}  // namespace

PathTime measure_products(Phase phase, const LinearKernels& higher, const LinearKernels& lower) {
  ThreadPool pool(1);
  WeightArena arena;
  const std::vector<uint8_t> blocks = q4_0_blocks();
  const auto weight = pack_weight(
      {.data = blocks.data(), .type = WeightType::kQ4_0, .rows = kOutputs, .cols = kInputs, .tolerant = true}, arena,
      pool);
  if (!weight.ok()) return {};
  const int64_t rows = phase == Phase::kPrefill ? kPromptRows : kDecodeRows;
  std::vector<float> x = ordinary_floats(rows * kInputs), out(rows * kOutputs), lower_out(out.size());
  const auto view = [rows](std::vector<float>& values, int64_t cols) {
    return TensorView{values.data(), DType::kF32, rows, cols, cols};
  };
  LinearRunner higher_runner(higher, false, pool), lower_runner(lower, false, pool);
  const auto run = [&](LinearRunner& runner, std::vector<float>& to) {
    runner.run(view(x, kInputs), (*weight)->view(), false, phase, view(to, kOutputs));
  };
  PathTime time = measure([&] { run(higher_runner, out); }, [&] { run(lower_runner, lower_out); });
  time.differs = !agree(out, lower_out);
  return time;
}

PathTime measure_attention(const PanelKernels& higher, const PanelKernels& lower) {
  AttentionSample higher_sample(higher), lower_sample(lower);
  PathTime time = measure([&] { higher_sample.run(); }, [&] { lower_sample.run(); });
  time.differs = !agree(higher_sample.output(), lower_sample.output());
  return time;
}

PathTimes measure_paths([[maybe_unused]] const IsaFeatures& features) {
  PathTimes times;
#if defined(__x86_64__)
  const auto products = [&](Phase phase, const IsaFeatures& higher, const IsaFeatures& lower) {
    return measure_products(phase, without_8_bits(highest_paths(higher)), without_8_bits(highest_paths(lower)));
  };
  IsaFeatures avx512 = features;
  avx512.amx = avx512.bf16 = avx512.vnni = false;
  const PanelKernels& avx512_panels = PathTable<AttentionKernels, Isa::kAvx512>::kernels.panel;
  const PanelKernels& bf16_panels = PathTable<PanelKernels, Isa::kAvx512Bf16>::kernels;
  IsaFeatures no_tiles = features;
  no_tiles.amx = false;
  if (features.vnni) times.decode_products = products(Phase::kDecode, no_tiles, avx512);
  if (features.bf16) {
    times.prompt_products = products(Phase::kPrefill, no_tiles, avx512);
    times.prompt_attention = measure_attention(bf16_panels, avx512_panels);
  }
  if (features.amx) {
    const CpuPaths chosen = faster_paths(no_tiles, times);
    times.tile_products = products(Phase::kPrefill, features, chosen.prompt_products);
    times.tile_attention = measure_attention(PathTable<PanelKernels, Isa::kAmxBf16>::kernels,
                                             chosen.prompt_attention.bf16 ? bf16_panels : avx512_panels);
  }
#endif
  return times;
}

PathTimes with_tolerant_products(const IsaFeatures& features, PathTimes times) {
  if (!features.vnni) return times;
  CpuPaths chosen = faster_paths(features, times);
  chosen.tolerant_in_8_bits = true;
  times.tolerant_products = measure_products(Phase::kPrefill, select_linear_kernels(chosen), without_8_bits(chosen));
  return times;
}

}  // namespace pkv
