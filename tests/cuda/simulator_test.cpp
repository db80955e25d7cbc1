// The simulator notices: each planted fault is one that a real device would, at best, answer with wrong numbers now and
// then.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "tests/cuda/planted_faults.h"
#include "tests/cuda/sim_array.h"

namespace pkv::test {
namespace {

using sim::Options;
using sim::Order;
using sim::SimStream;
using testing::HasSubstr;

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kAddressSanitizer = true;
#else
constexpr bool kAddressSanitizer = false;
#endif

const std::vector<Options> kOrders = {{.order = Order::kForward},
                                      {.order = Order::kBackward},
                                      {.order = Order::kShuffled, .seed = 1},
                                      {.order = Order::kShuffled, .seed = 2}};

std::vector<float> numbers(size_t count) {
  std::vector<float> values(count);
  std::iota(values.begin(), values.end(), 1.0f);
  return values;
}

// Whether reverse() gives what it should, with the fault.
bool reverses(SimStream& stream, Fault fault) {
  const std::vector<float> in = numbers(kFaultThreads);
  const SimArray<float> from(stream, in), to(stream, std::vector<float>(in.size()));
  reverse(stream, fault, from.data(), to.data());
  return to.read() == std::vector<float>(in.rbegin(), in.rend());
}

std::string error_of(Fault fault, const Options& options) {
  SimStream stream(options);
  reverses(stream, fault);
  return stream.error();
}

TEST(SimulatorTest, SoundKernelsAreRightInEveryOrder) {
  for (const Options& options : kOrders) {
    SimStream stream(options);
    EXPECT_TRUE(reverses(stream, Fault::kNone));
    const SimArray<float> in(stream, numbers(kFaultThreads)), out(stream, {0});
    sum(stream, in.data(), out.data());
    EXPECT_EQ(out.read()[0], kFaultThreads * (kFaultThreads + 1) / 2);
    EXPECT_EQ(stream.error(), "");
  }
}

TEST(SimulatorTest, WarpsDoWhatTheirsDo) {
  for (const Options& options : kOrders) {
    SimStream stream(options);
    const SimArray<int32_t> out(stream, std::vector<int32_t>(7 * 32));
    warp_words(stream, out.data());
    const std::vector<int32_t> rows = out.read();
    for (int32_t lane = 0; lane < 32; ++lane) {
      EXPECT_EQ(static_cast<uint32_t>(rows[lane]), 0xaaaaaaaau);
      EXPECT_EQ(rows[32 + lane], std::min(lane + 1, 31));
      EXPECT_EQ(rows[64 + lane], lane % 8 == 0 ? lane : lane - 1);
      EXPECT_EQ(rows[96 + lane], lane / 16 * 16 + 5);
      EXPECT_EQ(rows[128 + lane], lane ^ 3);
      EXPECT_EQ(rows[160 + lane], lane < 16 ? lane ^ 1 : 1);
      EXPECT_EQ(rows[192 + lane], 31);
    }
    EXPECT_EQ(stream.error(), "");
  }
}

TEST(SimulatorTest, ARemovedBarrierGivesOtherAnswersInOtherOrders) {
  const auto wrong = std::count_if(kOrders.begin(), kOrders.end(), [](const Options& options) {
    SimStream stream(options);
    return !reverses(stream, Fault::kRemovedBarrier);
  });
  EXPECT_GT(wrong, 0);
}

TEST(SimulatorTest, SharedMemoryThatNobodyWroteIsNotANumber) {
  SimStream stream({});
  const SimArray<float> from(stream, numbers(kFaultThreads)), to(stream, numbers(kFaultThreads));
  reverse(stream, Fault::kUnwrittenShared, from.data(), to.data());
  for (const float value : to.read()) EXPECT_TRUE(std::isnan(value));
}

TEST(SimulatorTest, DeviceMemoryThatNobodyWroteIsNotANumber) {
  SimStream stream({});
  auto* memory = static_cast<float*>(stream.allocate(sizeof(float) * kFaultThreads));
  const SimArray<float> to(stream, numbers(kFaultThreads));
  reverse(stream, Fault::kNone, memory, to.data());
  for (const float value : to.read()) EXPECT_TRUE(std::isnan(value));
  stream.release(memory);
}

TEST(SimulatorDeathTest, AWriteBeyondASharedArray) {
  if (kAddressSanitizer) {
    EXPECT_DEATH(error_of(Fault::kSharedOutOfBounds, {}), "use-after-poison");
  } else {
    EXPECT_THAT(error_of(Fault::kSharedOutOfBounds, {}), HasSubstr("beyond a shared array"));
  }
}

TEST(SimulatorDeathTest, AWriteBeyondDeviceMemory) {
  if (kAddressSanitizer) {
    EXPECT_DEATH(error_of(Fault::kGlobalOutOfBounds, {}), "use-after-poison");
  } else {
    EXPECT_THAT(error_of(Fault::kGlobalOutOfBounds, {}), HasSubstr("beyond device memory of 384 bytes"));
  }
}

TEST(SimulatorTest, ThreadsThatMeetAtDifferentBarriers) {
  for (const Options& options : kOrders) {
    EXPECT_THAT(error_of(Fault::kDifferentBarriers, options),
                testing::AllOf(HasSubstr("reverse: threads of a block meet at different barriers"),
                               HasSubstr("planted_faults.cu:"), HasSubstr("block (0, 0), thread")));
  }
}

TEST(SimulatorTest, ALaneThatIsMissing) {
  for (const Options& options : kOrders) {
    EXPECT_THAT(error_of(Fault::kMissingLane, options), HasSubstr("a lane of the mask never comes"));
  }
}

TEST(SimulatorDeathTest, TheHostCannotTouchDeviceMemory) {
  SimStream stream({});
  const SimArray<float> array(stream, {1, 2});
  EXPECT_DEATH(array.data()[0] = 2, "");
  EXPECT_DEATH(const_cast<volatile float*>(array.data())[1], "");
}

TEST(SimulatorTest, SharedMemoryIsTheArchitectures) {
  constexpr int64_t kBytes = 200 << 10;
  for (const size_t limit : {sim::kSharedBytesSm80, sim::kSharedBytesSm90}) {
    SimStream stream({.shared_bytes = limit});
    const SimArray<float> out(stream, {0});
    use_shared(stream, kBytes, out.data());
    stream.wait();
    EXPECT_EQ(stream.failed(), limit < kBytes) << stream.error();
  }
}

TEST(SimulatorTest, WorkIsDoneWhenItIsWaitedFor) {
  SimStream stream({});
  const SimArray<float> device(stream, {0});
  auto* pinned = static_cast<float*>(stream.allocate_pinned(sizeof(float)));
  *pinned = 1;
  stream.upload({device.data(), 4}, {pinned, 4}, 4, 1);
  *pinned = 2;  // too early
  EXPECT_EQ(device.read()[0], 2);
  stream.upload({device.data(), 4}, {pinned, 4}, 4, 1);
  stream.wait_for(stream.mark());
  *pinned = 3;
  EXPECT_EQ(device.read()[0], 2);
  stream.release_pinned(pinned);
}

TEST(SimulatorTest, MemoryThatIsGivenBackGoesToTheNext) {
  SimStream stream({});
  void* first = stream.allocate(kFaultThreads * sizeof(float));
  stream.release(first);
  void* second = stream.allocate(kFaultThreads * sizeof(float));
  EXPECT_EQ(first, second);
  const SimArray<float> to(stream, numbers(kFaultThreads));
  reverse(stream, Fault::kNone, static_cast<float*>(second), to.data());
  for (const float value : to.read()) EXPECT_TRUE(std::isnan(value));
  stream.release(second);
}

// Also in other sizes, whether or not those who had it are done.
TEST(SimulatorTest, MemoryThatIsGivenBackIsOnePieceAgain) {
  SimStream stream({});
  void *first = stream.allocate(300), *second = stream.allocate(5000), *third = stream.allocate(70);
  const SimArray<float> last(stream, numbers(kFaultThreads));
  stream.release(second);
  stream.release(first);
  stream.release(third);
  void* large = stream.allocate(6000);
  EXPECT_EQ(large, first) << "three neighbours are one";
  EXPECT_EQ(last.read(), numbers(kFaultThreads));
  stream.release(large);
  auto* beyond = static_cast<float*>(stream.allocate(1 << 20));
  EXPECT_GT(static_cast<void*>(beyond), static_cast<void*>(last.data()));
  const SimArray<float> to(stream, std::vector<float>(kFaultThreads));
  stream.zero(beyond, 1 << 20);
  reverse(stream, Fault::kNone, beyond, to.data());
  stream.release(beyond);  // the last of all, and still to be used
  EXPECT_EQ(to.read(), std::vector<float>(kFaultThreads));
  EXPECT_EQ(stream.allocate(1 << 20), beyond);
  EXPECT_EQ(to.read(), std::vector<float>(kFaultThreads));
  EXPECT_EQ(stream.error(), "");
}

TEST(SimulatorTest, TheCallThatIsToFailFails) {
  for (int64_t n = 1; n <= 3; ++n) {
    SimStream stream({});
    const SimArray<float> from(stream, numbers(kFaultThreads)), to(stream, std::vector<float>(kFaultThreads));
    stream.fail_at(n);
    for (int32_t i = 0; i < 3; ++i) reverse(stream, Fault::kNone, from.data(), to.data());
    EXPECT_FALSE(stream.failed()) << "before it was waited for";
    stream.wait();
    EXPECT_TRUE(stream.failed());
    EXPECT_EQ(to.read(), std::vector<float>(kFaultThreads)) << "work after a failure";
  }
  SimStream stream({});
  stream.fail_at(1);
  EXPECT_EQ(stream.allocate(4), nullptr);
  EXPECT_FALSE(stream.failed()) << "no memory is no failure of the device";
}

// ---- recordings

TEST(SimulatorTest, WhatIsRecordedIsDoneAsOftenAsItIsReplayed) {
  SimStream stream({});
  const SimArray<float> from(stream, numbers(kFaultThreads)), to(stream, std::vector<float>(kFaultThreads));
  stream.begin_recording();
  reverse(stream, Fault::kNone, from.data(), to.data());
  stream.copy({from.data(), 0}, {to.data(), 0}, kFaultThreads * sizeof(float), 1);
  const std::unique_ptr<gpu::Recorded> recorded = stream.end_recording();
  ASSERT_NE(recorded, nullptr);
  EXPECT_EQ(to.read(), std::vector<float>(kFaultThreads)) << "it was remembered and not done";
  std::vector<float> expected = numbers(kFaultThreads);
  for (int32_t time = 0; time < 3; ++time) {
    stream.replay(*recorded);
    std::reverse(expected.begin(), expected.end());
    EXPECT_EQ(to.read(), expected) << time;
  }
  EXPECT_EQ(stream.error(), "");
}

// What a captured step cannot have in it, each of which a CUDA capture refuses or, worse, remembers.
TEST(SimulatorTest, ARecordingRefusesMemoryTransfersAndWaiting) {
  constexpr size_t kBytes = 16;
  struct Case {
    const char* what;
    std::function<void(SimStream&, void* device, void* pinned)> fault;
  };
  const Case cases[] = {
      {"the host waits", [](SimStream& s, void*, void*) { s.wait(); }},
      {"the host waits", [](SimStream& s, void*, void*) { s.wait_for(0); }},
      {"a moment is marked", [](SimStream& s, void*, void*) { s.mark(); }},
      {"memory is asked for", [](SimStream& s, void*, void*) { EXPECT_EQ(s.allocate(kBytes), nullptr); }},
      {"memory is asked for", [](SimStream& s, void*, void*) { gpu::Scratch(s, kBytes); }},
      {"memory is given back", [](SimStream& s, void* device, void*) { s.release(device); }},
      {"pinned memory is asked for", [](SimStream& s, void*, void*) { EXPECT_EQ(s.allocate_pinned(kBytes), nullptr); }},
      {"something is uploaded",
       [](SimStream& s, void* d, void* p) {
         s.upload({d, 0}, {p, 0}, kBytes, 1);
       }},
      {"something is downloaded",
       [](SimStream& s, void* d, void* p) {
         s.download({p, 0}, {d, 0}, kBytes, 1);
       }},
  };
  for (const Case& one : cases) {
    SimStream stream({});
    void *device = stream.allocate(kBytes), *pinned = stream.allocate_pinned(kBytes);
    stream.begin_recording();
    one.fault(stream, device, pinned);
    EXPECT_EQ(stream.end_recording(), nullptr) << one.what;
    EXPECT_EQ(stream.error(), std::string(one.what) + " while work is recorded");
    stream.release_pinned(pinned);
  }
}

TEST(SimulatorTest, ScratchOfARecordingLiesInTheRoomForIt) {
  SimStream stream({});
  gpu::ScratchRoom& room = stream.scratch_room();
  {
    const gpu::Scratch outer(stream, 300);
    { const gpu::Scratch passing(stream, 100); }
    const gpu::Scratch inner(stream, 200);
  }
  EXPECT_EQ(room.most, 512u + 256);
  EXPECT_EQ(room.used, 0u);
  auto* memory = static_cast<std::byte*>(stream.allocate(512));
  room = {.memory = memory, .bytes = 512};
  stream.begin_recording();
  {
    const gpu::Scratch outer(stream, 256), inner(stream, 256);
    EXPECT_EQ(outer.as<std::byte>(), memory);
    EXPECT_EQ(inner.as<std::byte>(), memory + 256);
  }
  EXPECT_FALSE(stream.failed());
  const gpu::Scratch large(stream, 513);
  EXPECT_EQ(large.as<std::byte>(), nullptr);
  EXPECT_THAT(stream.error(), HasSubstr("513 bytes of scratch"));
  EXPECT_EQ(stream.end_recording(), nullptr);
  room = {.used = room.used};
  stream.release(memory);
}

}  // namespace
}  // namespace pkv::test
