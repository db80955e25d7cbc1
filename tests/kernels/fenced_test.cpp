// The fence holds: what the host does with backend memory by itself ends the process, and operations take no memory but
// the backend's.
#include <gtest/gtest.h>

#include "tests/support/backend_array.h"
#include "tests/support/fenced_backend.h"

namespace pkv::test {
namespace {

TEST(FencedBackendDeathTest, TheHostCannotTouchBackendMemory) {
  FencedBackend backend;
  const Tensor tensor = *backend.allocate(1, 4, DType::kF32);
  const Staged staged = *backend.allocate_staged(16);
  const std::vector<float> ones(4, 1.0f);
  backend.upload(tensor.view(), ones.data());
  std::vector<float> read(4);
  backend.fetch({read.data(), tensor.view()});
  EXPECT_EQ(read, ones);
  staged.host()[3] = std::byte{7};
  EXPECT_DEATH(tensor.view().f32()[0] = 2, "");
  EXPECT_DEATH(staged.device()[0] = std::byte{1}, "");
  EXPECT_DEATH(read[0] = tensor.view().f32()[1], "");
}

TEST(FencedBackendDeathTest, OperationsTakeBackendMemoryAlone) {
  FencedBackend backend;
  const Tensor x = *backend.allocate(1, 4, DType::kF32);
  backend.fill(x.view(), 1);
  const BackendArray<float> frequencies(backend, {1.0f, 0.5f});
  const BackendArray<int32_t> positions(backend, {3});
  const RopeSpec rope{.inv_freq = frequencies.data(), .pairs = 2, .head_dim = 4};
  backend.rope(x.view(), positions.data(), rope);
  const int32_t on_host[] = {3};
  EXPECT_DEATH(backend.rope(x.view(), on_host, rope), "not the backend's");
}

TEST(FencedBackendTest, TheDeviceKnowsWhatWasCommitted) {
  FencedBackend backend;
  const Staged staged = *backend.allocate_staged(12);
  auto* host = reinterpret_cast<int32_t*>(staged.host());
  for (int32_t i = 0; i < 3; ++i) host[i] = i + 1;
  backend.commit(staged, 4, 4);
  std::vector<int32_t> device(3);
  backend.fetch({device.data(), {staged.device(), DType::kI32, 1, 3, 3}});
  EXPECT_EQ(device, (std::vector<int32_t>{0, 2, 0}));
}

}  // namespace
}  // namespace pkv::test
