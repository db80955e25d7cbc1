// The memory half of the GPU backend on a simulated device: transfers, lifetimes, failures.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <new>
#include <numeric>

#include "kernels/cuda/sim/sim_backend.h"

namespace pkv {
namespace {

using sim::SimBackend;
using testing::HasSubstr;

SimBackend make() { return *sim::make_sim_backend({}); }

std::vector<float> numbers(int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  std::iota(values.begin(), values.end(), 1.0f);
  return values;
}

std::vector<float> read(Backend& backend, const TensorView& view) {
  std::vector<float> values(static_cast<size_t>(view.rows * view.cols), -1.0f);
  backend.fetch({values.data(), view});
  return values;
}

TEST(DeviceBackendTest, WhatIsUploadedMayChangeAtOnce) {
  const SimBackend made = make();
  const Tensor tensor = *made.backend->allocate(2, 3, DType::kF32);
  std::vector<float> host = numbers(6);
  made.backend->upload(tensor.view(), host.data());
  host.assign(6, 0.0f);
  EXPECT_EQ(read(*made.backend, tensor.view()), numbers(6));
}

// More than the pinned memory holds in one piece, so that the ring goes round several times.
TEST(DeviceBackendTest, LargeTransfersComeInPieces) {
  const SimBackend made = make();
  constexpr int64_t kRows = 40, kCols = 300'000;  // 48 MB
  const Tensor tensor = *made.backend->allocate(kRows, kCols, DType::kF32);
  std::vector<float> host = numbers(kRows * kCols);
  made.backend->upload(tensor.view(), host.data());
  const std::vector<float> expected = host;
  host.assign(host.size(), 0.0f);
  EXPECT_EQ(read(*made.backend, tensor.view()), expected);
  // Columns of it, whose rows lie apart.
  const TensorView part = tensor.view().slice_cols(7, kCols - 9);
  made.backend->upload(part, expected.data());
  const std::vector<float> back = read(*made.backend, part);
  EXPECT_TRUE(std::equal(back.begin(), back.end(), expected.begin()));
}

TEST(DeviceBackendTest, ReadsOfOneFetchShareOneWait) {
  const SimBackend made = make();
  const Tensor a = *made.backend->allocate(2, 5, DType::kF32), b = *made.backend->allocate(1, 3, DType::kF32);
  made.backend->upload(a.view(), numbers(10).data());
  made.backend->upload(b.view(), numbers(3).data());
  std::vector<float> of_a(4), of_b(3);
  const int64_t before = made.stream->waits();
  made.backend->fetch({{{of_a.data(), a.view().slice_cols(1, 2)}, {of_b.data(), b.view()}}});
  EXPECT_EQ(made.stream->waits(), before + 1);
  EXPECT_EQ(of_a, (std::vector<float>{2, 3, 7, 8}));
  EXPECT_EQ(of_b, numbers(3));
}

TEST(DeviceBackendTest, CopiesRowsThatLieApart) {
  const SimBackend made = make();
  const Tensor a = *made.backend->allocate(3, 4, DType::kF32), b = *made.backend->allocate(3, 2, DType::kF32);
  made.backend->upload(a.view(), numbers(12).data());
  made.backend->copy(b.view(), a.view().slice_cols(1, 2));
  EXPECT_EQ(read(*made.backend, b.view()), (std::vector<float>{2, 3, 6, 7, 10, 11}));
}

TEST(DeviceBackendTest, TheDeviceKnowsWhatWasCommitted) {
  const SimBackend made = make();
  const Staged staged = *made.backend->allocate_staged(3 * sizeof(float));
  auto* host = reinterpret_cast<float*>(staged.host());
  for (int32_t i = 0; i < 3; ++i) host[i] = static_cast<float>(i + 1);
  made.backend->commit(staged, 4, 4);
  host[1] = 9;  // later than the commit
  EXPECT_EQ(read(*made.backend, {staged.device(), DType::kF32, 1, 3, 3}), (std::vector<float>{0, 2, 0}));
}

TEST(DeviceBackendTest, LazyMemoryIsZeros) {
  const SimBackend made = make();
  const auto memory = *made.backend->allocate_lazy(16);
  EXPECT_EQ(read(*made.backend, {memory.get(), DType::kF32, 1, 4, 4}), std::vector<float>(4));
}

TEST(DeviceBackendTest, MemoryIsGivenBack) {
  SimBackend made = make();
  {
    const Tensor tensor = *made.backend->allocate(10, 10, DType::kF32);
    const Staged staged = *made.backend->allocate_staged(100);
    EXPECT_EQ(made.stream->memory().used, 500u);
  }
  EXPECT_EQ(made.stream->memory().used, 0u);
  const Tensor outlives = *made.backend->allocate(1, 1, DType::kF32);
  made.backend.reset();
  EXPECT_EQ(made.stream->memory().pinned, 0u);
}

TEST(DeviceBackendTest, MemoryIsToldByWhatItWasAskedFor) {
  const SimBackend made = make();
  const uint64_t pinned = made.backend->device_memory()->pinned;
  EXPECT_GT(pinned, 0u);
  const auto taken = [&] {
    const DeviceMemory now = *made.backend->device_memory();
    EXPECT_EQ(now.used, now.weights + now.lazy + now.tensors + now.staged);
    EXPECT_GE(now.reserved, now.used);
    EXPECT_EQ(now.pinned, pinned);
    return std::vector<uint64_t>{now.weights, now.lazy, now.tensors, now.staged};
  };
  uint64_t most = 0;
  {
    const float values[] = {1, 2, 3, 4, 5, 6};
    const auto weight = *made.backend->prepare_weight({.data = values, .type = WeightType::kF32, .rows = 2, .cols = 3});
    const auto lazy = *made.backend->allocate_lazy(1000);
    const Tensor tensor = *made.backend->allocate(2, 5, DType::kF32);
    const Staged staged = *made.backend->allocate_staged(100);
    EXPECT_EQ(taken(), (std::vector<uint64_t>{24, 1000, 40, 100}));
    most = made.backend->device_memory()->reserved;
  }
  EXPECT_EQ(taken(), std::vector<uint64_t>(4));
  EXPECT_EQ(made.backend->device_memory()->reserved, most) << "what was given back is kept";
}

TEST(DeviceBackendTest, WeightsAreDecoded) {
  const SimBackend made = make();
  const float values[] = {1, 2, 3, 4, 5, 6};
  const auto weight = *made.backend->prepare_weight({.data = values, .type = WeightType::kF32, .rows = 2, .cols = 3});
  const Tensor x = *made.backend->allocate(1, 3, DType::kF32), out = *made.backend->allocate(1, 2, DType::kF32);
  made.backend->upload(x.view(), values);
  made.backend->linear(x.view(), *weight, false, Phase::kDecode, out.view());
  made.backend->linear(x.view(), *weight, true, Phase::kPrefill, out.view());
  EXPECT_EQ(read(*made.backend, out.view()), (std::vector<float>{2 * 14, 2 * 32}));
  EXPECT_EQ(weight->bytes(), sizeof(values));
}

TEST(DeviceBackendTest, NoMemoryIsAnErrorOfTheCallAlone) {
  const SimBackend made = make();
  made.stream->fail_at(1);
  EXPECT_EQ(made.backend->allocate(1, 1, DType::kF32).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(made.backend->status().ok());
  EXPECT_TRUE(made.backend->allocate(1, 1, DType::kF32).ok());
}

// Whichever call fails, the status says so once it was waited for, stays, and what is read is zeros.
TEST(DeviceBackendTest, TheFirstFailureStays) {
  for (int64_t n = 1;; ++n) {
    const SimBackend made = make();
    const Tensor a = *made.backend->allocate(1, 4, DType::kF32), b = *made.backend->allocate(1, 4, DType::kF32);
    const int64_t before = made.stream->calls();
    made.stream->fail_at(n);
    made.backend->upload(a.view(), numbers(4).data());
    made.backend->upload(b.view(), numbers(4).data());
    made.backend->silu_mul(a.view(), b.view());
    made.backend->copy(b.view(), a.view());
    EXPECT_TRUE(made.backend->status().ok());
    const std::vector<float> result = read(*made.backend, b.view());
    if (made.stream->calls() - before < n) {
      EXPECT_TRUE(made.backend->status().ok());
      EXPECT_GT(n, 5);  // two uploads, a kernel, a copy and a download
      return;
    }
    EXPECT_EQ(result, std::vector<float>(4)) << n;
    EXPECT_EQ(made.backend->status().code(), absl::StatusCode::kInternal) << n;
    EXPECT_THAT(std::string(made.backend->status().message()), HasSubstr("told to fail"));
    EXPECT_EQ(made.backend->allocate(1, 1, DType::kF32).status(), made.backend->status());
    EXPECT_EQ(read(*made.backend, a.view()), std::vector<float>(4)) << n;
  }
}

// ---- recordings

TEST(DeviceBackendTest, AReplayedStepSeesWhatMemoryHoldsNow) {
  const SimBackend made = make();
  const Tensor a = *made.backend->allocate(2, 8, DType::kF32), gain = *made.backend->allocate(1, 8, DType::kF32);
  made.backend->upload(gain.view(), std::vector<float>(8, 1.0f).data());
  std::unique_ptr<Recording> recording;
  int32_t recorded = 0;
  for (int32_t time = 0; time < 5; ++time) {
    std::vector<float> values = numbers(16);
    for (float& value : values) value += static_cast<float>(time);
    made.backend->upload(a.view(), values.data());
    made.backend->replay(recording, [&] {
      ++recorded;
      made.backend->add_bias(a.view(), gain.view());
      made.backend->silu_mul(a.view(), a.view());
    });
    const std::vector<float> got = read(*made.backend, a.view());
    for (size_t i = 0; i < got.size(); ++i) {
      const double x = values[i] + 1;
      EXPECT_NEAR(got[i], x * x / (1 + std::exp(-x)), 1e-4 * x * x) << time << " " << i;
    }
  }
  EXPECT_EQ(recorded, 2) << "as always, and once to be remembered";
  EXPECT_TRUE(made.backend->status().ok());
}

// Operations that take scratch, in recordings of two sizes: the smaller one's scratch stays valid when the larger one
// needs more.
TEST(DeviceBackendTest, RecordingsShareTheirScratch) {
  const SimBackend made = *sim::make_sim_backend({}, /*exact=*/false);
  constexpr int64_t kCols = 1024;
  const std::vector<float> values(static_cast<size_t>(16 * kCols), 0.5f);
  const auto weight =
      *made.backend->prepare_weight({.data = values.data(), .type = WeightType::kF32, .rows = 16, .cols = kCols});
  const Tensor x = *made.backend->allocate(16, kCols, DType::kF32), out = *made.backend->allocate(16, 16, DType::kF32);
  made.backend->upload(x.view(), values.data());
  std::unique_ptr<Recording> recordings[2];
  for (int32_t time = 0; time < 4; ++time) {
    for (const int64_t rows : {int64_t{1}, int64_t{16}}) {
      made.backend->fill(out.view(), -1.0f);
      made.backend->replay(recordings[rows == 16], [&] {
        made.backend->linear(x.view().slice_rows(0, rows), *weight, false, Phase::kDecode,
                             out.view().slice_rows(0, rows));
      });
      EXPECT_EQ(read(*made.backend, out.view().slice_rows(0, rows)),
                std::vector<float>(static_cast<size_t>(rows * 16), kCols * 0.25f));
    }
  }
  EXPECT_TRUE(made.backend->status().ok()) << made.backend->status();
}

TEST(DeviceBackendTest, AWaitInARecordedStepIsAFailureThatIsNamed) {
  const SimBackend made = make();
  const Tensor a = *made.backend->allocate(1, 4, DType::kF32);
  made.backend->fill(a.view(), 1);
  std::unique_ptr<Recording> recording;
  const auto step = [&] {
    made.backend->silu_mul(a.view(), a.view());
    read(*made.backend, a.view());
  };
  made.backend->replay(recording, step);
  EXPECT_TRUE(made.backend->status().ok()) << "not recorded yet";
  made.backend->replay(recording, step);
  EXPECT_EQ(made.backend->status().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(made.backend->status().message()), HasSubstr("while work is recorded"));
  EXPECT_EQ(read(*made.backend, a.view()), std::vector<float>(4));
}

TEST(DeviceBackendTest, ARecorderThatThrowsEndsTheRecording) {
  const SimBackend made = make();
  const Tensor a = *made.backend->allocate(1, 4, DType::kF32);
  std::unique_ptr<Recording> recording;
  made.backend->replay(recording, [] {});
  EXPECT_THROW(made.backend->replay(recording, [] { throw std::bad_alloc(); }), std::bad_alloc);
  made.backend->fill(a.view(), 2);
  EXPECT_EQ(read(*made.backend, a.view()), std::vector<float>(4, 2.0f));
  EXPECT_TRUE(made.backend->allocate(1, 1, DType::kF32).ok());
}

TEST(DeviceBackendTest, WithoutGraphsEveryStepIsAskedForAnew) {
  const SimBackend made = *sim::make_sim_backend({}, true, /*graphs=*/false);
  std::unique_ptr<Recording> recording;
  int32_t calls = 0;
  for (int32_t time = 0; time < 3; ++time) made.backend->replay(recording, [&] { ++calls; });
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(recording, nullptr);
  EXPECT_EQ(made.backend->traits().decode_rows, 1);
}

TEST(DeviceBackendTest, SupportsEvenHeadsOfAtMost256) {
  const SimBackend made = make();
  EXPECT_TRUE(made.backend->supports({.q_heads = 9, .kv_heads = 3, .head_dim = 64}).ok());
  EXPECT_TRUE(made.backend->supports({.q_heads = 80, .kv_heads = 1, .head_dim = 12}).ok());
  for (const AttentionShape& shape :
       {AttentionShape{7, 2, 64}, AttentionShape{4, 2, 258}, AttentionShape{4, 2, 33}, AttentionShape{4, 2, 0}}) {
    EXPECT_EQ(made.backend->supports(shape).code(), absl::StatusCode::kUnimplemented);
  }
}

TEST(DeviceBackendDeathTest, TheHostCannotTouchItsMemory) {
  const SimBackend made = make();
  const Tensor tensor = *made.backend->allocate(1, 4, DType::kF32);
  made.backend->upload(tensor.view(), numbers(4).data());
  made.backend->sync();
  EXPECT_DEATH(tensor.view().f32()[0] = 2, "");
}

}  // namespace
}  // namespace pkv
