// Speed of the CPU attention paths on the shapes of a small model (3 KV heads, 9 query heads of 64): decode over a
// cache of 30 layers that does not fit the caches of a core, one prompt chunk of 256 rows at several depths, whole
// prompts by patterns of sparse attention, the observation passes, and what is done to entries and keys alone.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "kernels/cpu/attention/attention.h"
#include "kernels/cpu/lanes/select.h"
#include "tests/kernels/attention_fixture.h"

namespace pkv {
namespace {

constexpr int32_t kHeadDim = 64;
constexpr int32_t kKvHeads = 3;
constexpr int32_t kQueryHeads = 9;
constexpr int32_t kPageBytes = 4096;

IsaFeatures features_of(const benchmark::State& state) { return isa_paths()[state.range(0)].features; }

void report(benchmark::State& state, double flops, double bytes) {
  state.SetLabel(isa_paths()[state.range(0)].name);
  const auto rate = benchmark::Counter::kIsIterationInvariantRate;
  state.counters["FLOP/s"] = benchmark::Counter(flops, rate);
  if (bytes > 0) state.counters["B/s"] = benchmark::Counter(bytes, rate);
}

// range: path, slots a lane, sequences in the step, entry format
void BM_Decode(benchmark::State& state) {
  const auto slots = static_cast<int32_t>(state.range(1));
  const auto sequences = static_cast<int32_t>(state.range(2));
  const int32_t layers = std::max(1, 30 / sequences);
  const EntryFormat format = kEntryFormats.rows[state.range(3)];
  PagedLanes cache(kHeadDim, kPageBytes, std::vector<LaneShape>(layers * sequences * kKvHeads, {slots, format.id}), 0,
                   1);
  std::vector<float> q = random_floats(static_cast<size_t>(sequences) * kQueryHeads * kHeadDim, 2);
  std::vector<float> out(q.size());
  ThreadPool pool(available_cores());
  CpuAttention attention(features_of(state), false, pool);
  std::vector<RowSpan> spans;
  for (int32_t s = 0; s < sequences; ++s) spans.push_back({s, 1, s * kKvHeads});
  KvView kv = cache.view();
  for (auto _ : state) {
    for (int32_t layer = 0; layer < layers; ++layer) {
      kv.lanes = &cache.lanes[layer * sequences * kKvHeads];
      attention.attend({.q = matrix(q, sequences),
                        .out = matrix(out, sequences),
                        .kv = kv,
                        .spans = {spans.data(), static_cast<int32_t>(spans.size())},
                        .q_heads = kQueryHeads,
                        .kv_heads = kKvHeads,
                        .scale = 0.125f,
                        .phase = Phase::kDecode});
    }
  }
  const double entries = static_cast<double>(layers) * sequences * slots;
  report(state, 4 * entries * kHeadDim * kQueryHeads, entries * kKvHeads * format.entry_bytes(kHeadDim));
  state.SetLabel(isa_paths()[state.range(0)].name + " " + format.name);
}

// range: path, slots before the chunk
void BM_Prefill(benchmark::State& state) {
  constexpr int32_t kRows = 256;
  const auto depth = static_cast<int32_t>(state.range(1));
  PagedLanes cache(kHeadDim, kPageBytes, std::vector<LaneShape>(kKvHeads, {depth + kRows, KvDtype::kF16}), 0, 1);
  cache.show(kRows);
  std::vector<float> q = random_floats(static_cast<size_t>(kRows) * kQueryHeads * kHeadDim, 2);
  std::vector<float> out(q.size());
  ThreadPool pool(available_cores());
  CpuAttention attention(features_of(state), false, pool);
  const std::vector<RowSpan> spans = {{0, kRows, 0}};
  for (auto _ : state) {
    attention.attend({.q = matrix(q, kRows),
                      .out = matrix(out, kRows),
                      .kv = cache.view(),
                      .spans = {spans.data(), static_cast<int32_t>(spans.size())},
                      .q_heads = kQueryHeads,
                      .kv_heads = kKvHeads,
                      .scale = 0.125f,
                      .phase = Phase::kPrefill});
  }
  report(state, 4.0 * kHeadDim * kQueryHeads * kRows * (depth + (kRows + 1) / 2.0), 0);
}

// The attention of a whole prompt in chunks of 256 rows, by a pattern or to everything.
void attend_prompt(Backend& backend, PagedLanes& cache, const TensorView& q, const TensorView& out,
                   const SparsePattern& pattern) {
  constexpr int32_t kRows = 256;
  const RowSpan span{0, kRows, 0};
  for (int32_t first = 0; first < cache.lanes[0].length; first += kRows) {
    for (Lane& lane : cache.lanes) lane.visible = first + 1;
    backend.attend({.q = q,
                    .out = out,
                    .kv = cache.view(),
                    .spans = {&span, 1},
                    .q_heads = kQueryHeads,
                    .kv_heads = kKvHeads,
                    .scale = 0.125f,
                    .phase = Phase::kPrefill,
                    .sparse = pattern});
  }
}

// Chooses as the server does: 64 rows, 16 at a time.
void choose_pattern(Backend& backend, const PagedLanes& cache, const TensorView& q, const SparsePattern& pattern) {
  constexpr int32_t kRows = 64, kStep = 16;
  const int32_t n = cache.lanes[0].length;
  std::vector<float> columns(static_cast<size_t>(kQueryHeads) * n), diagonals(columns.size()), lse(kStep * kQueryHeads);
  std::vector<double> pairs(kKvHeads);
  for (int32_t row = 0; row < kRows; row += kStep) {
    const ObserveArgs args{.q = q.slice_rows(row, kStep),
                           .kv = cache.view(),
                           .unseen = kRows - 1 - row,
                           .q_heads = kQueryHeads,
                           .kv_heads = kKvHeads,
                           .scale = 0.125f};
    backend.observe(args, matrix(lse, kStep), matrix(columns, kQueryHeads), {});
    backend.diagonal_mass(args, matrix(lse, kStep), matrix(diagonals, kQueryHeads));
  }
  backend.choose_pattern({matrix(columns, kQueryHeads), matrix(diagonals, kQueryHeads), kRows}, pattern,
                         {pairs.data(), DType::kF64, 1, kKvHeads, kKvHeads});
}

// A layer's attention over a prompt of random keys: to everything and by a pattern, in turns; what choosing the pattern
// takes stands beside it.
// range: slots, entries that a row sees about (PolicySpec::prefill_tokens)
void BM_SparsePrompt(benchmark::State& state) {
  const auto slots = static_cast<int32_t>(state.range(0)), seen = static_cast<int32_t>(state.range(1));
  PagedLanes cache(kHeadDim, kPageBytes, std::vector<LaneShape>(kKvHeads, {slots, KvDtype::kF16}), 0, 1);
  std::vector<float> q = random_floats(256 * kQueryHeads * kHeadDim, 2), out(q.size());
  const auto backend = *make_backend({.device = "cpu"});
  const int32_t column_count = seen / 2, band_count = 2 + seen / 2 / kSparseBlock;
  std::vector<int32_t> columns(kKvHeads * column_count), bands(kKvHeads * band_count);
  const SparsePattern pattern{{columns.data(), DType::kI32, kKvHeads, column_count, column_count},
                              {bands.data(), DType::kI32, kKvHeads, band_count, band_count},
                              slots - 64};
  double dense = 0, sparse = 0, choosing = 0;
  for (auto _ : state) {
    const int64_t begin = backend->mark();
    attend_prompt(*backend, cache, matrix(q, 256), matrix(out, 256), {});
    const int64_t middle = backend->mark();
    choose_pattern(*backend, cache, matrix(q, 256), pattern);
    const int64_t chosen = backend->mark();
    attend_prompt(*backend, cache, matrix(q, 256), matrix(out, 256), pattern);
    const int64_t end = backend->mark();
    dense += backend->elapsed(begin, middle);
    choosing += backend->elapsed(middle, chosen);
    sparse += backend->elapsed(middle, end);
  }
  state.counters["dense/sparse"] = dense / sparse;
  state.counters["choosing/sparse"] = choosing / sparse;
  state.SetLabel(backend->description());
}

// range: path, slots, observation rows
void BM_Observe(benchmark::State& state) {
  const auto slots = static_cast<int32_t>(state.range(1));
  const auto rows = static_cast<int32_t>(state.range(2));
  PagedLanes cache(kHeadDim, kPageBytes, std::vector<LaneShape>(kKvHeads, {slots, KvDtype::kF16}), 0, 1);
  std::vector<float> q = random_floats(static_cast<size_t>(rows) * kQueryHeads * kHeadDim, 2);
  std::vector<float> lse(static_cast<size_t>(rows) * kQueryHeads);
  std::vector<float> sums(static_cast<size_t>(slots) * kQueryHeads);
  ThreadPool pool(available_cores());
  CpuAttention attention(features_of(state), false, pool);
  const ObserveArgs args{.q = matrix(q, rows),
                         .kv = cache.view(),
                         .unseen = rows - 1,
                         .q_heads = kQueryHeads,
                         .kv_heads = kKvHeads,
                         .scale = 0.125f};
  for (auto _ : state) {
    attention.row_lse(args, matrix(lse, rows));
    attention.column_mass(args, matrix(lse, rows), matrix(sums, kQueryHeads), {});
  }
  report(state, 4.0 * kHeadDim * kQueryHeads * rows * slots, 0);
}

void BM_SelectTop(benchmark::State& state) {
  std::vector<float> scores = random_floats(3 * 8000, 1);
  std::vector<int32_t> kept(3 * 1024);
  ThreadPool pool(available_cores());
  std::vector<int32_t> counts(3, 1024);
  for (auto _ : state) {
    cpu_select_top(matrix(scores, 3), 8, {counts.data(), DType::kI32, 1, 3, 3},
                   {kept.data(), DType::kI32, 3, 1024, 1024}, pool);
  }
}

void BM_WriteKv(benchmark::State& state) {
  constexpr int32_t kRows = 256;
  PagedLanes cache(kHeadDim, kPageBytes, std::vector<LaneShape>(kKvHeads, {kRows, KvDtype::kF16}), 0, 1);
  cache.show(kRows);
  std::vector<float> k = random_floats(kRows * kKvHeads * kHeadDim, 2);
  const std::vector<int32_t> positions(kRows);
  const std::vector<RowSpan> spans = {{0, kRows, 0}};
  ThreadPool pool(available_cores());
  CpuAttention attention(features_of(state), false, pool);
  for (auto _ : state)
    attention.write_kv(matrix(k, kRows), matrix(k, kRows), positions.data(), cache.view(),
                       {spans.data(), static_cast<int32_t>(spans.size())}, kKvHeads);
  report(state, 0, 0);
}

// range: 0 ascending slots, 1 any order
void BM_Gather(benchmark::State& state) {
  PagedLanes cache(kHeadDim, kPageBytes, {{8000, KvDtype::kF16}}, 0, 1);
  std::vector<int32_t> kept(1000);
  for (int32_t i = 0; i < 1000; ++i) kept[i] = i * 8 + 3;
  if (state.range(0) == 1) std::shuffle(kept.begin(), kept.end(), std::mt19937(1));
  ThreadPool pool(available_cores());
  CpuAttention attention(detect_isa(), false, pool);
  std::vector<int32_t> counts = {1000};
  for (auto _ : state) {
    attention.gather(cache.view(), 0, {kept.data(), DType::kI32, 1, 1000, 1000}, {counts.data(), DType::kI32, 1, 1, 1},
                     0);
  }
}

// range: path, slots
void BM_KeyNorms(benchmark::State& state) {
  const auto slots = static_cast<int32_t>(state.range(1));
  PagedLanes cache(kHeadDim, kPageBytes, std::vector<LaneShape>(kKvHeads, {slots, KvDtype::kF16}), 0, 1);
  std::vector<float> norms(static_cast<size_t>(kKvHeads) * slots);
  ThreadPool pool(available_cores());
  CpuAttention attention(features_of(state), false, pool);
  for (auto _ : state) attention.key_norms(cache.view(), 0, matrix(norms, kKvHeads));
  report(state, 0, 2.0 * kKvHeads * slots * kHeadDim);
}

// range: path, slots
void BM_KeySimilarity(benchmark::State& state) {
  const auto slots = static_cast<int32_t>(state.range(1));
  PagedLanes cache(kHeadDim, kPageBytes, std::vector<LaneShape>(kKvHeads, {slots, KvDtype::kF16}), 0, 1);
  std::vector<float> sums(kKvHeads * kHeadDim), cosines(static_cast<size_t>(kKvHeads) * slots);
  ThreadPool pool(available_cores());
  CpuAttention attention(features_of(state), false, pool);
  for (auto _ : state) {
    attention.key_similarity(cache.view(), 0, matrix(sums, kKvHeads), matrix(cosines, kKvHeads));
  }
  report(state, 0, 2.0 * kKvHeads * slots * kHeadDim);
}

// range: path, slots
void BM_TurnKeys(benchmark::State& state) {
  const auto slots = static_cast<int32_t>(state.range(1));
  PagedLanes cache(kHeadDim, kPageBytes, std::vector<LaneShape>(kKvHeads, {slots, KvDtype::kF16}), 0, 1);
  std::vector<float> inv_freq(kHeadDim / 2);
  for (int32_t i = 0; i < kHeadDim / 2; ++i) inv_freq[i] = static_cast<float>(std::pow(1e4, -2.0 * i / kHeadDim));
  ThreadPool pool(available_cores());
  CpuAttention attention(features_of(state), false, pool);
  for (auto _ : state) {
    attention.turn_keys(cache.view(), 0, kKvHeads, 4, -1,
                        {.inv_freq = inv_freq.data(), .pairs = kHeadDim / 2, .head_dim = kHeadDim});
  }
  report(state, 0, 4.0 * kKvHeads * slots * kHeadDim);
}

void every_path(benchmark::internal::Benchmark* b, const std::vector<std::vector<int64_t>>& shapes) {
  for (size_t path = 0; path < isa_paths().size(); ++path) {
    for (std::vector<int64_t> args : shapes) {
      args.insert(args.begin(), static_cast<int64_t>(path));
      b->Args(args);
    }
  }
  b->UseRealTime()->Unit(benchmark::kMicrosecond);
}

BENCHMARK(BM_Decode)->Apply([](auto* b) {
  for (const EntryFormat& format : kEntryFormats.rows) {
    const auto row = static_cast<int64_t>(format.id);
    every_path(b, {{128, 1, row}, {1000, 1, row}, {2000, 1, row}, {8000, 1, row}, {1000, 10, row}, {1000, 30, row}});
  }
});
BENCHMARK(BM_Prefill)->Apply([](auto* b) { every_path(b, {{0}, {256}, {1024}, {4096}, {8000}}); });
BENCHMARK(BM_SparsePrompt)
    ->ArgsProduct({{8192, 32768}, {1024, 2048, 4096}})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(BM_Observe)->Apply([](auto* b) { every_path(b, {{128, 1}, {300, 1}, {8000, 8}, {8000, 64}}); });
BENCHMARK(BM_WriteKv)->Apply([](auto* b) { every_path(b, {{}}); });
BENCHMARK(BM_SelectTop)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(BM_Gather)->Arg(0)->Arg(1)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(BM_KeyNorms)->Apply([](auto* b) { every_path(b, {{128}, {8000}}); });
BENCHMARK(BM_KeySimilarity)->Apply([](auto* b) { every_path(b, {{128}, {8000}}); });
BENCHMARK(BM_TurnKeys)->Apply([](auto* b) { every_path(b, {{128}, {8000}}); });

}  // namespace
}  // namespace pkv
