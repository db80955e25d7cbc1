// Matrix products of the CPU backend, per instruction-set path: GFLOP/s of prompt-sized products beside a peak measured
// in registers on the same threads, and GB/s of weights in decode beside a plain read of as much memory. --threads=N
// (0, the default: all cores); one thread is timed by its CPU time, so that other work on the machine disturbs it less.
#include <benchmark/benchmark.h>
#include <immintrin.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/cpu/tiles.h"
#include "kernels/quant.h"

namespace pkv {
namespace {

constexpr int64_t kPrefillRows = 256;
constexpr size_t kDecodeWeightBytes = size_t{96} << 20;  // more than the caches hold, as a model's weights are
constexpr int64_t kPeakRounds = 2'000'000;
constexpr int kAccumulators = 12;  // enough to hide the latency of two multiply-add units

// ---- peaks
// Each returns a value that depends on all the work, and does kPeakRounds * kAccumulators multiply-adds.

__attribute__((target("avx2,fma"))) float peak_avx2() {
  __m256 sums[kAccumulators];
  for (auto& sum : sums) sum = _mm256_setzero_ps();
  __m256 x = _mm256_set1_ps(1.0001f), y = _mm256_set1_ps(0.5f);
  for (int64_t i = 0; i < kPeakRounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kAccumulators; ++j) sums[j] = _mm256_fmadd_ps(x, y, sums[j]);
    __asm__ volatile("" : "+x"(x), "+x"(y));
  }
  for (int j = 1; j < kAccumulators; ++j) sums[0] = _mm256_add_ps(sums[0], sums[j]);
  return _mm256_cvtss_f32(sums[0]);
}

__attribute__((target("avx512f"))) float peak_avx512() {
  __m512 sums[kAccumulators];
  for (auto& sum : sums) sum = _mm512_setzero_ps();
  __m512 x = _mm512_set1_ps(1.0001f), y = _mm512_set1_ps(0.5f);
  for (int64_t i = 0; i < kPeakRounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kAccumulators; ++j) sums[j] = _mm512_fmadd_ps(x, y, sums[j]);
    __asm__ volatile("" : "+v"(x), "+v"(y));
  }
  for (int j = 1; j < kAccumulators; ++j) sums[0] = _mm512_add_ps(sums[0], sums[j]);
  return _mm512_cvtss_f32(sums[0]);
}

__attribute__((target("avx512f,avx512bf16"))) float peak_bf16() {
  __m512 sums[kAccumulators];
  for (auto& sum : sums) sum = _mm512_setzero_ps();
  __m512i x = _mm512_set1_epi32(0x3f803f80), y = x;
  for (int64_t i = 0; i < kPeakRounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kAccumulators; ++j) sums[j] = _mm512_dpbf16_ps(sums[j], (__m512bh)x, (__m512bh)y);
    __asm__ volatile("" : "+v"(x), "+v"(y));
  }
  for (int j = 1; j < kAccumulators; ++j) sums[0] = _mm512_add_ps(sums[0], sums[j]);
  return _mm512_cvtss_f32(sums[0]);
}

// Four sums of two tiles by two, as products have them.
float peak_amx() {
  const Tiles tiles;
  Tiles::zero<0>();
  Tiles::zero<1>();
  Tiles::zero<2>();
  Tiles::zero<3>();
  Tiles::zero<4>();
  Tiles::zero<5>();
  Tiles::zero<6>();
  Tiles::zero<7>();
  for (int64_t i = 0; i < kPeakRounds * kAccumulators / 4; ++i) {
    Tiles::multiply_add<0, 4, 6>();
    Tiles::multiply_add<1, 4, 7>();
    Tiles::multiply_add<2, 5, 6>();
    Tiles::multiply_add<3, 5, 7>();
  }
  float sum[kTileRows][kTileFloats];
  Tiles::store<0>(sum, sizeof(sum[0]));
  return sum[0][0];
}

struct Peak {
  float (*run)() = nullptr;
  double flops_per_instruction = 0;
};

Peak peak_of(const std::string& isa) {
  if (isa == "avx2") return {peak_avx2, 16};
  if (isa == "avx512" || isa == "avx512_vnni") return {peak_avx512, 32};
  if (isa == "avx512_bf16") return {peak_bf16, 64};
  if (isa == "amx_bf16") return {peak_amx, 2.0 * kTileRows * kTileFloats * kTileDepth};
  return {};
}

void run_peak(benchmark::State& state, Peak peak, int32_t threads) {
  ThreadPool pool(threads);
  for (auto _ : state) {
    pool.run(pool.threads(), [&](int64_t, int32_t) { benchmark::DoNotOptimize(peak.run()); });
  }
  const double flops = peak.flops_per_instruction * kAccumulators * kPeakRounds * pool.threads();
  state.counters["GFLOP/s"] = benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

void run_read(benchmark::State& state, int32_t threads) {
  ThreadPool pool(threads);
  std::vector<uint64_t> memory(kDecodeWeightBytes / 8, 1);
  const int64_t part = static_cast<int64_t>(memory.size()) / pool.threads();
  for (auto _ : state) {
    pool.run(pool.threads(), [&](int64_t task, int32_t) {
      uint64_t lanes[16] = {};
      for (int64_t i = 0; i + 16 <= part; i += 16) {
        for (int lane = 0; lane < 16; ++lane) lanes[lane] += memory[task * part + i + lane];
      }
      benchmark::DoNotOptimize(lanes);
    });
  }
  state.counters["GB/s"] = benchmark::Counter(kDecodeWeightBytes * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

// ---- products

struct Shape {
  int64_t rows, inputs, outputs;
};

std::vector<uint8_t> random_blocks(WeightType type, int64_t weights) {
  const QuantTraits& traits = quant_traits(type);
  std::vector<uint8_t> blocks(weights / traits.block_size * traits.block_bytes);
  std::mt19937 rng(1);
  for (uint8_t& byte : blocks) byte = static_cast<uint8_t>(rng());
  const uint16_t half = float_to_half(0.01f);
  for (size_t at = 0; at < blocks.size(); at += traits.block_bytes) {
    std::memcpy(blocks.data() + at, &half, 2);
    std::memcpy(blocks.data() + at + 2, &half, 2);
  }
  return blocks;
}

struct Product {
  BackendOptions options;
  WeightType type;
  Shape shape;
  Phase phase;
  bool tolerant = false;
};

void run_product(benchmark::State& state, const Product& product) {
  auto backend = make_backend(product.options);
  if (!backend.ok()) return state.SkipWithError(std::string(backend.status().message()).c_str());
  const auto [rows, inputs, outputs] = product.shape;
  const std::vector<uint8_t> blocks = random_blocks(product.type, inputs * outputs);
  const size_t copies = product.phase == Phase::kDecode ? 1 + kDecodeWeightBytes / blocks.size() : 1;
  std::vector<std::unique_ptr<Weight>> weights;
  for (size_t i = 0; i < copies; ++i) {
    weights.push_back(*(*backend)->prepare_weight({blocks.data(), product.type, outputs, inputs, product.tolerant}));
  }
  Tensor x = *(*backend)->allocate(rows, inputs, DType::kF32);
  Tensor out = *(*backend)->allocate(rows, outputs, DType::kF32);
  for (int64_t i = 0; i < rows * inputs; ++i) x.view().f32()[i] = static_cast<float>(i % 17) - 8.0f;
  size_t turn = 0;
  for (auto _ : state) {
    (*backend)->linear(x.view(), *weights[turn], false, product.phase, out.view());
    turn = (turn + 1) % copies;
  }
  const double flops = 2.0 * static_cast<double>(rows * inputs * outputs);
  state.counters["GFLOP/s"] = benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["GB/s"] = benchmark::Counter(static_cast<double>(weights[0]->bytes()) * 1e-9,
                                              benchmark::Counter::kIsIterationInvariantRate);
}

// One thread is timed by what it used, several by the clock.
void set_timing(benchmark::internal::Benchmark* benchmark, int32_t threads) {
  if (threads > 1) benchmark->UseRealTime();
}

void register_path(const std::string& isa, int32_t threads) {
  const Peak peak = peak_of(isa);
  if (peak.run != nullptr) {
    set_timing(benchmark::RegisterBenchmark(("peak/" + isa).c_str(), run_peak, peak, threads), threads);
  }
  const auto add = [&](const std::string& group, const Product& product) {
    const auto [rows, inputs, outputs] = product.shape;
    const std::string name = group + "/" + isa + (product.options.exact ? "_exact/" : "/") +
                             std::string(quant_traits(product.type).name) + "/" + std::to_string(rows) + "x" +
                             std::to_string(inputs) + "x" + std::to_string(outputs);
    set_timing(benchmark::RegisterBenchmark(name.c_str(), run_product, product), threads);
  };
  const BackendOptions options = {.device = "cpu", .fast = true, .threads = threads, .isa = isa};
  BackendOptions exact = options;
  exact.exact = true;
  exact.fast = false;
  for (const auto& [inputs, outputs] : {std::pair<int64_t, int64_t>{576, 192}, {576, 576}, {576, 1536}, {1536, 576}}) {
    add("prefill", {options, WeightType::kQ4_1, {kPrefillRows, inputs, outputs}, Phase::kPrefill});
    add("tolerant", {options, WeightType::kQ4_1, {kPrefillRows, inputs, outputs}, Phase::kPrefill, true});
    add("decode", {options, WeightType::kQ4_1, {1, inputs, outputs}, Phase::kDecode});
  }
  add("prefill", {exact, WeightType::kQ4_1, {kPrefillRows, 576, 1536}, Phase::kPrefill});
  add("prefill", {options, WeightType::kQ8_0, {kPrefillRows, 576, 1536}, Phase::kPrefill});
  for (const WeightType type : {WeightType::kQ8_0, WeightType::kQ6_K}) {
    add("tolerant", {options, type, {kPrefillRows, 768, 1536}, Phase::kPrefill, true});
  }
  add("decode", {exact, WeightType::kQ4_1, {1, 576, 1536}, Phase::kDecode});
  add("decode", {options, WeightType::kQ4_1, {8, 576, 1536}, Phase::kDecode});
  add("decode", {options, WeightType::kQ8_0, {1, 576, 49152}, Phase::kDecode});
  add("decode", {options, WeightType::kQ8_0, {32, 576, 49152}, Phase::kDecode});
  for (const WeightType type : {WeightType::kQ4_K, WeightType::kQ6_K, WeightType::kF16, WeightType::kBF16}) {
    add("decode", {options, type, {1, 2048, 2048}, Phase::kDecode});
  }
}

}  // namespace
}  // namespace pkv

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  int32_t threads = 0;
  constexpr std::string_view kThreads = "--threads=";
  if (argc > 1 && std::string_view(argv[1]).starts_with(kThreads)) {
    threads = std::atoi(argv[1] + kThreads.size());
    argv[1] = argv[0];
    --argc, ++argv;
  }
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  if (threads <= 0) threads = pkv::available_cores();
  pkv::set_timing(benchmark::RegisterBenchmark("read", pkv::run_read, threads), threads);
  for (const char* isa : {"scalar", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx_bf16"}) {
    if (pkv::cap_isa(pkv::detect_isa(), isa).ok()) pkv::register_path(isa, threads);
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
