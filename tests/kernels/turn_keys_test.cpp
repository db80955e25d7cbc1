// Rotations add up: keys rotated for position p, written to a lane and turned by delta there are the keys of p + delta.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/reference/reference_backend.h"
#include "tests/kernels/backends_under_test.h"
#include "tests/kernels/case_data.h"

namespace pkv {
namespace {

constexpr int32_t kHeadDim = 64;
constexpr int32_t kRows = 45;

struct Setting {
  KvDtype dtype;
  RopePairing pairing;
  int32_t delta;
};

// Lane 0 gets keys for positions p turned by delta, lane 1 keys for p + delta. The largest difference.
double largest_difference(Backend& backend, const Setting& setting) {
  std::mt19937 random(3);
  std::vector<float> inv_freq;
  for (int i = 0; i < 24; ++i) inv_freq.push_back(static_cast<float>(std::pow(1e4, -i / 24.0)));  // 48 of 64 dimensions
  const BackendArray<float> frequencies(backend, inv_freq);
  const RopeSpec spec{.inv_freq = frequencies.data(),
                      .pairs = frequencies.size(),
                      .pairing = setting.pairing,
                      .head_dim = kHeadDim,
                      .magnitude = 1.25f};
  const CaseLane lane{.lane = {.length = kRows, .visible = 1, .dtype = setting.dtype}};
  CaseCache cache(backend, CacheContent(random, {.head_dim = kHeadDim, .page_bytes = 3072, .lanes = {lane, lane}}));
  const Matrix keys = random_matrix(random, kRows, kHeadDim);
  const auto write = [&](int32_t to_lane, int32_t shift) {
    std::vector<int32_t> positions;
    for (int32_t i = 0; i < kRows; ++i) positions.push_back(200 + 4 * i + shift);
    const CaseTensor k(backend, keys, Placement::kDense);
    const BackendArray<int32_t> on_backend(backend, positions);
    const BackendArray<RowSpan> span(backend, {{.rows = kRows, .first_lane = to_lane}});
    backend.rope(k.view(), on_backend.data(), spec);
    backend.write_kv(k.view(), k.view(), on_backend.data(), cache.view(), row_spans(span), 1);
  };
  write(0, 0);
  write(1, setting.delta);
  backend.turn_keys(cache.view(), 0, 1, 0, setting.delta, spec);
  const TurnedKeys all{.end_slot = kRows, .dims = kHeadDim};
  const Output turned = cache.entries(0, kRows, all), wanted = cache.entries(1, kRows, all);
  double largest = 0;
  for (size_t i = 0; i < turned.floats.size(); ++i) {
    largest = std::max<double>(largest, std::abs(turned.floats[i] - wanted.floats[i]));
  }
  return largest;
}

// Elements are below 8, and rounded twice on one of the two ways.
double allowed_difference(KvDtype dtype) {
  switch (dtype) {
    case KvDtype::kF16:
      return 0x1p-7;
    case KvDtype::kBF16:
      return 0x1p-4;
    case KvDtype::kK8V4:
      return 2 * 8.0 / 127;
    case KvDtype::kF32:
      return 5e-4;  // angles up to 700
  }
  return 0;
}

void expect_sums(Backend& backend, const std::string& name) {
  for (const EntryFormat& format : kEntryFormats.rows) {
    for (RopePairing pairing : {RopePairing::kAdjacent, RopePairing::kHalves}) {
      for (int32_t delta : {1, 300, -1, -200}) {
        EXPECT_LT(largest_difference(backend, {format.id, pairing, delta}), allowed_difference(format.id))
            << name << ", " << format.name << " by " << delta;
      }
    }
  }
}

TEST(TurnKeysTest, EqualsRotationForTheSumOfPositions) {
  const std::unique_ptr<Backend> reference = make_reference_backend();
  expect_sums(*reference, "reference");
  for (const BackendUnderTest& tested : backends_under_test({1, 2})) expect_sums(*tested.backend, tested.name);
}

}  // namespace
}  // namespace pkv
