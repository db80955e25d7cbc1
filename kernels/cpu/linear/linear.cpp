// Cuts matrix products into tasks: tiles of outputs by blocks of rows, or ranges of panels for single rows.
#include "kernels/cpu/linear/linear.h"

#include <algorithm>

#include "kernels/check.h"
#include "kernels/cpu/parallel.h"

namespace pkv {
namespace {

constexpr int32_t kFewRows = 8;  // whose tiles are smaller
// Below this many rows a block's share of the unpacking outweighs what a better balance gains.
constexpr int64_t kMinBlockRows = 96;
// Rounding or quantising an activation, against an element read and written.
constexpr int64_t kConvertedElement = 4;
constexpr int64_t kLineBytes = 64;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t align_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

int64_t panel_count(const PackedView& weight) { return ceil_div(weight.rows, kPanelOutputs); }

// Rows per block such that tiles x blocks fill the threads evenly.
int64_t choose_block_rows(int64_t rows, int64_t tiles, int32_t threads, int64_t multiple) {
  int64_t blocks = ceil_div(rows, kGemmMaxRows / multiple * multiple);
  const auto uneven = [&] { return tiles * blocks % threads != 0 && tiles * blocks < 8 * threads; };
  while (uneven() && rows / (2 * blocks) >= kMinBlockRows) blocks *= 2;
  return std::min<int64_t>(kGemmMaxRows / multiple * multiple, align_up(ceil_div(rows, blocks), multiple));
}

}  // namespace

LinearRunner::LinearRunner(const LinearKernels& kernels, bool exact, ThreadPool& pool)
    : kernels_(kernels), exact_(exact), pool_(pool), tiles_(pool.threads()), partials_(pool.threads()) {}

void LinearRunner::run(const TensorView& x, const PackedView& weight, bool accumulate, Phase phase,
                       const TensorView& out) {
  PKV_CHECK(x.cols == weight.cols && out.cols == weight.rows && x.rows == out.rows, "shapes of a matrix product");
  if (!exact_ && phase == Phase::kDecode && weight.scale_kind != ScaleKind::kNone) {
    run_int8(x, weight, accumulate, out);
  } else {
    run_gemm(gemm_kernels(weight, phase), x, weight, accumulate, out);
  }
}

const GemmKernels& LinearRunner::gemm_kernels(const PackedView& weight, Phase phase) const {
  if (exact_ || phase == Phase::kDecode) return kernels_.f32;
  const bool tolerant = weight.tolerant && weight.scale_kind != ScaleKind::kNone;
  if (tolerant && kernels_.int8_gemm.multiply != nullptr) return kernels_.int8_gemm;
  return kernels_.bf16.multiply != nullptr ? kernels_.bf16 : kernels_.f32;
}

LinearRunner::GemmRows LinearRunner::convert_rows(const GemmKernels& kernels, const TensorView& x,
                                                  const PackedView& weight) {
  constexpr int64_t kFloat = sizeof(float);
  GemmRows rows{.count = x.rows,
                .a = static_cast<const std::byte*>(x.data),
                .stride = x.row_stride,
                .row_bytes = x.row_stride * kFloat,
                .step_bytes = kGemmStep * kFloat};
  const bool quantised = kernels.quantize_row != nullptr;
  if (kernels.convert_row == nullptr && !quantised) return rows;
  rows.step_bytes = quantised ? kernels.step_bytes(weight) : kGemmStep * kernels.element_bytes;
  const int64_t filled_bytes = align_up(x.cols, kernels.depth_multiple) * rows.step_bytes / kGemmStep;
  // An odd number of cache lines: rows a page apart, as those of many models are, would share one set of the caches.
  rows.row_bytes = (ceil_div(filled_bytes, kLineBytes) | 1) * kLineBytes;
  rows.stride = quantised ? rows.row_bytes : rows.row_bytes / kernels.element_bytes;
  const int64_t padded_rows = align_up(x.rows, kernels.row_multiple);
  auto* converted = activations_.reserve<std::byte>(padded_rows * (rows.row_bytes + kFloat));
  auto* scales = reinterpret_cast<float*>(converted + padded_rows * rows.row_bytes);
  parallel_for(pool_, x.rows, kConvertedElement * x.cols, [&](int64_t row) {
    std::byte* to = converted + row * rows.row_bytes;
    if (quantised) {
      kernels.quantize_row(x.f32_row(row), weight, to, scales + row);
    } else {
      kernels.convert_row(x.f32_row(row), x.cols, to);
    }
  });
  rows.a = converted;
  if (quantised) rows.scales = scales;
  return rows;
}

void LinearRunner::run_gemm(const GemmKernels& kernels, const TensorView& x, const PackedView& weight, bool accumulate,
                            const TensorView& out) {
  const GemmRows rows = convert_rows(kernels, x, weight);
  const int64_t panels = panel_count(weight);
  const int64_t tile_cols = kernels.tile_panels * kPanelOutputs;
  const int64_t tiles = ceil_div(panels, kernels.tile_panels);
  const int64_t block_rows = choose_block_rows(rows.count, tiles, pool_.threads(), kernels.row_multiple);
  const int64_t tile_bytes = rows.count <= kFewRows ? kernels.few_rows_tile_bytes : kernels.tile_bytes;
  const int64_t least = std::max(32, kernels.depth_multiple);
  const int64_t most = std::max<int64_t>(1, tile_bytes / (tile_cols * kernels.element_bytes) / least) * least;
  const int64_t chunk = align_up(ceil_div(weight.cols, ceil_div(weight.cols, most)), least);  // of like depth
  const int64_t blocks = ceil_div(rows.count, block_rows);
  const int64_t tile_weights = tile_cols * weight.cols;
  const int64_t work = tile_weights + elements_of_multiply_adds(tile_weights * std::min(block_rows, rows.count));
  parallel_for(pool_, tiles * blocks, work, [&](int64_t item, int32_t thread) {
    const int64_t tile = item / blocks;
    const int64_t first_row = item % blocks * block_rows;
    const int64_t depth = std::min(weight.cols, chunk);
    auto* b =
        tiles_[thread].reserve<std::byte>(align_up(depth, kernels.depth_multiple) * tile_cols * kernels.element_bytes);
    GemmTile args;
    args.a_stride = rows.stride;
    args.b = b;
    args.weight = &weight;
    if (rows.scales != nullptr) args.row_scales = rows.scales + first_row;
    args.rows = static_cast<int32_t>(std::min(block_rows, rows.count - first_row));
    args.cols = static_cast<int32_t>(std::min(tile_cols, weight.rows - tile * tile_cols));
    args.accumulate = accumulate;
    args.partial = weight.cols > chunk ? partials_[thread].reserve<float>(block_rows * tile_cols) : nullptr;
    args.out = out.f32_row(first_row) + tile * tile_cols;
    args.out_stride = out.row_stride;
    for (int64_t k = 0; k < weight.cols; k += chunk) {
      args.depth = std::min(chunk, weight.cols - k);
      args.first = k == 0;
      args.last = k + args.depth == weight.cols;
      args.a = rows.a + first_row * rows.row_bytes + k * rows.step_bytes / kGemmStep;
      for (int32_t slot = 0; slot < kernels.tile_panels; ++slot) {
        // Slots beyond the last panel repeat it; their outputs are not stored.
        const int64_t panel = std::min(tile * kernels.tile_panels + slot, panels - 1);
        kernels.unpack(weight, panel, k, k + args.depth, b, slot);
      }
      kernels.multiply(args);
    }
  });
}

Int8Rows LinearRunner::quantize_rows(const TensorView& x, const PackedView& weight) {
  Int8Rows rows;
  rows.rows = static_cast<int32_t>(x.rows);
  rows.code_stride = align_up(weight.cols, 64);
  rows.group_stride = weight.cols / weight.group;
  const int64_t cells = x.rows * rows.group_stride;
  auto* memory = activations_.reserve<std::byte>(x.rows * rows.code_stride + cells * 12);
  rows.codes = reinterpret_cast<int8_t*>(memory);
  rows.scales = reinterpret_cast<float*>(memory + x.rows * rows.code_stride);
  rows.scaled_sums = rows.scales + cells;
  rows.corrections = reinterpret_cast<int32_t*>(rows.scaled_sums + cells);
  parallel_for(pool_, x.rows, kConvertedElement * x.cols, [&](int64_t row) {
    kernels_.int8.quantize_row(x.f32_row(row), weight, static_cast<int32_t>(row), rows);
  });
  return rows;
}

void LinearRunner::run_int8(const TensorView& x, const PackedView& weight, bool accumulate, const TensorView& out) {
  const Int8Rows rows = quantize_rows(x, weight);
  const int64_t panels = panel_count(weight);
  // A code is read from memory, and that takes longer than multiplying it with a row or two.
  parallel_for(pool_, panels, weight.panel_code_bytes * x.rows, [&](int64_t first, int64_t last, int32_t) {
    kernels_.int8.multiply(weight, first, last, rows, accumulate, out.f32(), out.row_stride);
  });
}

}  // namespace pkv
