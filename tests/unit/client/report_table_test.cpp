// What people read of a cache report.
#include "client/report_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pkv::client {
namespace {

using testing::HasSubstr;

TEST(HumanBytes, UnitsAndSigns) {
  EXPECT_EQ(human_bytes(512), "512 B");
  EXPECT_EQ(human_bytes(2048), "2.0 KiB");
  EXPECT_EQ(human_bytes(-3.5 * 1024 * 1024), "-3.50 MiB");
  EXPECT_EQ(human_bytes(1024.0 * 1024 * 1024), "1.00 GiB");
}

ReportColumn column() {
  ReportColumn result{.title = "snapkv 64"};
  result.usage.set_prompt_tokens(1000);
  result.cache.set_full_bytes(1000 << 10);
  result.cache.set_saved_bytes(900 << 10);
  result.cache.set_compressed(true);
  return result;
}

TEST(ReportTable, OneColumnAReply) {
  const std::string table = report_table({column(), column()});
  EXPECT_THAT(table, HasSubstr("90.0 %"));
  EXPECT_THAT(table, HasSubstr("900.0 KiB"));
  EXPECT_THAT(table, HasSubstr("           snapkv 64            snapkv 64\n"));
}

TEST(ReportTable, SaysWhyNothingWasCompressed) {
  ReportColumn full = column();
  full.cache.set_compressed(false);
  full.cache.set_not_compressed_reason("policy full keeps everything");
  EXPECT_THAT(report_table({full}), HasSubstr("not compressed, policy full keeps everything"));
}

TEST(LayerBars, LongestForTheLayerThatKeepsMost) {
  v1::CacheReport report;
  for (double kept : {100.0, 50.0}) {
    auto& layer = *report.add_layers();
    layer.set_layer(report.layers_size() - 1);
    layer.set_kept_mean(kept);
  }
  EXPECT_EQ(layer_bars(report), "layer   0  " + std::string(50, '#') + "    100 kept\nlayer   1  " + std::string(25, '#') +
                                    std::string(25, ' ') + "     50 kept\n");
  EXPECT_EQ(layer_bars({}), "");
}

}  // namespace
}  // namespace pkv::client
