// Calibration of a lane table on a tiny model: what is counted, and what is refused.
#include "server/calibration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <numeric>
#include <random>

#include "tests/support/gguf_writer.h"

namespace pkv {
namespace {

class CalibrationTest : public testing::Test {
 protected:
  std::vector<std::vector<TokenId>> prompts(size_t count, size_t tokens) {
    std::vector<std::vector<TokenId>> made(count, std::vector<TokenId>(tokens));
    for (std::vector<TokenId>& prompt : made) {
      for (TokenId& id : prompt) id = static_cast<TokenId>(3 + random_() % 256);
    }
    return made;
  }

  std::mt19937 random_{9};
  const std::unique_ptr<GgufFile> file_ = *GgufFile::open(test::make_tiny_llama({.layers = 3}).path());
  const std::unique_ptr<Backend> backend_ = *make_backend({.device = "cpu", .threads = 2});
  const std::unique_ptr<Model> model_ = *load_model(*file_, *backend_);
};

TEST_F(CalibrationTest, SharesOfAllLanesAverageOne) {
  size_t done = 0;
  CalibrationOptions options{.keeps = {0.2, 0.3, 0.5}};
  options.progress = [&](size_t prompts) { done = prompts; };
  const auto table = calibrate(*model_, prompts(3, 300), options);
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(done, 3u);
  EXPECT_EQ(table->layers, 3);
  EXPECT_EQ(table->kv_heads, 2);
  ASSERT_EQ(table->anchors.size(), 3u);
  for (const LaneTable::Anchor& anchor : table->anchors) {
    ASSERT_EQ(anchor.shares.size(), 6u);
    EXPECT_NEAR(std::accumulate(anchor.shares.begin(), anchor.shares.end(), 0.0), 6.0, 1e-9);
    for (const double share : anchor.shares) EXPECT_GE(share, 0.0);
  }
  // The same prompts give the same table, and it can be read back.
  std::mt19937 again(9);
  std::swap(random_, again);
  const auto repeated = calibrate(*model_, prompts(3, 300), {.keeps = {0.2, 0.3, 0.5}});
  ASSERT_TRUE(repeated.ok());
  EXPECT_EQ(format_lane_table(*repeated), format_lane_table(*table));
}

TEST_F(CalibrationTest, WhereEverythingIsKeptAllSharesAreAlike) {
  const auto table = calibrate(*model_, prompts(1, 200), {.keeps = {1}});
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_THAT(table->anchors[0].shares, testing::Each(testing::DoubleNear(1.0, 1e-9)));
}

TEST_F(CalibrationTest, PromptsThatAreTooShortAreRefused) {
  const auto table = calibrate(*model_, prompts(1, 300), {.keeps = {0.03}});
  EXPECT_EQ(table.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(table.status().message()), testing::HasSubstr("300 tokens"));
}

TEST_F(CalibrationTest, ScoresThatAreNoNumbersMakeNoTable) {
  constexpr TokenId kBroken = 7;
  constexpr int32_t kWidth = 64;
  test::GgufWriter writer = test::tiny_llama({.width = kWidth});
  const std::string nan = test::raw(std::numeric_limits<float>::quiet_NaN());
  writer.tensor("token_embd.weight").data.replace(size_t{kBroken} * kWidth * sizeof(float), nan.size(), nan);
  const test::TempFile path = writer.write();
  const std::unique_ptr<GgufFile> file = *GgufFile::open(path.path());
  const std::unique_ptr<Model> model = *load_model(*file, *backend_);
  std::vector<std::vector<TokenId>> prompts(2, std::vector<TokenId>(200, kBroken + 1));
  const CalibrationOptions options{.keeps = {0.5}};
  EXPECT_TRUE(calibrate(*model, prompts, options).ok()) << "without the broken token all is well";
  prompts[1][100] = kBroken;
  const auto table = calibrate(*model, prompts, options);
  EXPECT_EQ(table.status().code(), absl::StatusCode::kDataLoss) << table.status();
  EXPECT_THAT(std::string(table.status().message()), testing::HasSubstr("layer 0, KV head 0: scores are not numbers"));
}

}  // namespace
}  // namespace pkv
