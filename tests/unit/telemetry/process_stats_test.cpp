#include "server/telemetry/process_stats.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <ctime>
#include <thread>
#include <vector>

namespace pkv {
namespace {

TEST(ProcessStats, FollowTheProcess) {
  const std::optional<ProcessStats> before = read_process_stats();
  ASSERT_TRUE(before.has_value());
  EXPECT_GE(before->virtual_bytes, before->resident_bytes);
  EXPECT_GT(before->resident_bytes, uint64_t{100} << 10);
  EXPECT_GE(before->max_fds, static_cast<double>(before->open_fds));
  EXPECT_NEAR(before->start_time_seconds, static_cast<double>(std::time(nullptr)), 3600);

  constexpr size_t kBytes = size_t{64} << 20;
  std::vector<char> memory(kBytes, 1);
  const int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
  std::optional<ProcessStats> during;
  std::jthread([&] { during = read_process_stats(); }).join();
  close(file);
  ASSERT_TRUE(during.has_value());
  EXPECT_GT(during->resident_bytes, before->resident_bytes + kBytes / 2);
  EXPECT_GT(during->virtual_bytes, before->virtual_bytes);
  EXPECT_EQ(during->open_fds, before->open_fds + 1);
  EXPECT_EQ(during->threads, before->threads + 1);
  EXPECT_EQ(during->start_time_seconds, before->start_time_seconds);
  EXPECT_GE(during->cpu_seconds, before->cpu_seconds);
  EXPECT_EQ(memory.back(), 1);
}

}  // namespace
}  // namespace pkv
