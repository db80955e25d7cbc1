// What people see of a server's state, and what scripts read of it.
#include "client/stats_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace pkv::client {
namespace {

using testing::AllOf;
using testing::ContainsRegex;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::SizeIs;
using testing::StartsWith;

constexpr uint64_t kMiB = 1 << 20;

v1::Stats state() {
  v1::Stats stats;
  stats.set_version("1.2.3");
  stats.set_state(v1::SERVER_STATE_SERVING);
  stats.mutable_uptime()->set_seconds(3723);
  stats.mutable_scheduler()->set_running(3);
  stats.mutable_scheduler()->set_waiting(1);
  v1::MemoryStats& memory = *stats.mutable_memory();
  memory.set_kv_pool_bytes(100 * kMiB);
  memory.set_kv_live_bytes(25 * kMiB);
  memory.set_kv_free_bytes(75 * kMiB);
  memory.set_kv_reserved_bytes(50 * kMiB);
  memory.set_kv_held_bytes(24 * kMiB);
  memory.set_kv_full_equivalent_bytes(200 * kMiB);
  memory.set_kv_saved_bytes(static_cast<int64_t>(175 * kMiB));
  for (const char* name : {"full", "streaming_llm", "snapkv"}) stats.add_policies()->set_policy(name);
  v1::PolicyStats& snapkv = *stats.mutable_policies(2);
  snapkv.set_running(3);
  snapkv.set_requests_total(7);
  snapkv.set_held_bytes(24 * kMiB);
  snapkv.set_full_equivalent_bytes(200 * kMiB);
  snapkv.set_saved_bytes(static_cast<int64_t>(175 * kMiB));
  snapkv.set_evicted_entries_total(12345);
  v1::TotalStats& totals = *stats.mutable_totals();
  (*totals.mutable_requests_by_code())["OK"] = 6;
  (*totals.mutable_requests_by_code())["CANCELLED"] = 1;
  totals.set_generation_tokens(1000);
  totals.set_prompt_tokens(5000);
  totals.set_rejected(2);
  return stats;
}

// Two and a half seconds later.
v1::Stats later() {
  v1::Stats stats = state();
  stats.mutable_uptime()->set_seconds(3725);
  stats.mutable_uptime()->set_nanos(500'000'000);
  (*stats.mutable_totals()->mutable_requests_by_code())["OK"] = 11;
  stats.mutable_totals()->set_generation_tokens(1250);
  stats.mutable_totals()->set_prompt_tokens(5025);
  return stats;
}

std::string text_of(const std::vector<std::string>& lines) { return absl::StrJoin(lines, "\n") + "\n"; }

TEST(StatsView, SaysItAllInEightyColumns) {
  const v1::Stats before = state();
  const std::vector<std::string> lines = stats_view(&before, later(), {.width = 80});
  EXPECT_THAT(lines, ElementsAre("pyramidkv-server 1.2.3  SERVING  up 1h2m5s",
                                 "pool      [############===========.......................]  25.0 % of 100.00 MiB",
                                 "# live 25.00 MiB = reserved 50.00 MiB . free 75.00 MiB",
                                 "requests  3 running, 1 waiting, 12 ended, 2 refused",
                                 "rates     100.0 tok/s, 10.0 prompt tok/s, 2.0 requests/s",
                                 "saved     175.00 MiB of 200.00 MiB in full caches: 87.5 %", "",
                                 "policy        running         held         full        saved    share      done",
                                 "snapkv              3    24.00 MiB   200.00 MiB   175.00 MiB   87.5 %         7"));
}

TEST(StatsView, AFullCacheSavesNothing) {
  v1::Stats stats = state();
  stats.mutable_memory()->set_kv_saved_bytes(-2048);
  v1::PolicyStats& full = *stats.mutable_policies(0);
  full.set_running(1);
  full.set_full_equivalent_bytes(kMiB);
  full.set_saved_bytes(-1024);
  const std::string text = text_of(stats_view(nullptr, stats, {.width = 80}));
  EXPECT_THAT(text, HasSubstr("saved     nothing of 200.00 MiB in full caches\n"));
  EXPECT_THAT(text, HasSubstr("full                1          0 B     1.00 MiB      nothing        -         0\n"));
  EXPECT_THAT(stats_line(nullptr, stats), HasSubstr(" saved_bytes=-2048 "));  // for programs
}

TEST(StatsView, NoLineIsLongerThanTheTerminalAndColumnsLeaveWhole) {
  v1::Stats stats = state();
  v1::RequestStats& request = *stats.add_requests();
  request.set_phase("decode");
  request.set_policy("streaming_llm");
  request.set_request_id(std::string(300, 'r'));
  for (int width = 0; width <= 200; ++width) {
    for (const std::string& line : stats_view(nullptr, stats, {.width = width}))
      ASSERT_LE(line.size(), static_cast<size_t>(width)) << line;
  }
  const auto view = [&](int width) { return text_of(stats_view(nullptr, stats, {.width = width})); };
  EXPECT_THAT(view(60), AllOf(HasSubstr("saved\n"), Not(HasSubstr("share"))));
  EXPECT_THAT(view(69), AllOf(HasSubstr("share\n"), Not(HasSubstr("done"))));
  EXPECT_THAT(view(140), AllOf(HasSubstr("evicted\n"), HasSubstr(" 12345\n")));
}

TEST(StatsView, TheBarHasItsCellsInProportion) {
  v1::Stats stats = state();
  const auto bar = [&] {
    const std::string line = stats_view(nullptr, stats, {.width = 74})[1];
    return line.substr(line.find('['), line.find(']') + 1 - line.find('['));
  };
  EXPECT_EQ(bar(), "[##########==========....................]");
  stats.mutable_memory()->set_kv_live_bytes(1);  // the least there is still shows
  stats.mutable_memory()->set_kv_reserved_bytes(100 * kMiB);
  EXPECT_THAT(bar(), StartsWith("[#========"));
  EXPECT_THAT(bar(), Not(HasSubstr(".")));
  stats.mutable_memory()->set_kv_live_bytes(100 * kMiB);
  EXPECT_THAT(bar(), Not(ContainsRegex("[.=]")));
  stats.clear_memory();
  EXPECT_THAT(bar(), ContainsRegex("^.[.]+.$"));
}

TEST(StatsView, BeforeAnythingHappened) {
  v1::Stats loading;
  loading.set_state(v1::SERVER_STATE_LOADING);
  const std::string text = text_of(stats_view(nullptr, loading, {.width = 80}));
  EXPECT_THAT(text, HasSubstr("LOADING"));
  EXPECT_THAT(text, HasSubstr(" - tok/s, - prompt tok/s, - requests/s\nsaved     -\n"));
  EXPECT_THAT(text, HasSubstr("(no request yet)\n"));
}

TEST(StatsView, ARestartedServerHasNoRatesYet) {
  v1::Stats restarted = later();
  restarted.mutable_uptime()->set_seconds(1);
  const v1::Stats before = state();
  EXPECT_THAT(text_of(stats_view(&before, restarted, {})), HasSubstr(" - tok/s, "));
}

// Bytes of a line without its colours.
size_t visible(const std::string& line) {
  size_t size = 0;
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '\x1b') {
      i = line.find('m', i);
    } else {
      ++size;
    }
  }
  return size;
}

TEST(StatsView, ColoursTakeNoPlace) {
  const std::vector<std::string> plain = stats_view(nullptr, state(), {.width = 70});
  const std::vector<std::string> colored = stats_view(nullptr, state(), {.width = 70, .color = true});
  EXPECT_THAT(text_of(plain), Not(HasSubstr("\x1b")));
  EXPECT_THAT(colored[0], HasSubstr("\x1b[32mSERVING\x1b[0m"));
  ASSERT_THAT(colored, SizeIs(plain.size()));
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_EQ(visible(colored[i]), plain[i].size());
}

TEST(StatsView, RequestIdsCannotReachTheTerminal) {
  v1::Stats stats = state();
  stats.add_requests()->set_request_id("a\x1b[2Jb\n\xC2\x9B");
  EXPECT_THAT(text_of(stats_view(nullptr, stats, {.width = 140})), HasSubstr("  a\\x1B[2Jb\\x0A\\xC2\\x9B\n"));
}

TEST(StatsLine, AlwaysTheSameKeys) {
  const auto keys = [](const std::string& line) {
    std::vector<std::string> result;
    for (const auto word : absl::StrSplit(line, ' ')) result.push_back(std::string(word.substr(0, word.find('='))));
    return result;
  };
  const v1::Stats before = state();
  const std::string first = stats_line(nullptr, before), second = stats_line(&before, later());
  EXPECT_EQ(keys(first), keys(second));
  EXPECT_EQ(keys(first), keys(stats_line(nullptr, {})));
  EXPECT_THAT(keys(first), Each(Not("")));
  EXPECT_THAT(first, HasSubstr(" generated_tokens_per_second=0.0 "));
  EXPECT_EQ(second,
            "uptime_seconds=3725.5 state=SERVING running=3 waiting=1 pool_bytes=104857600 live_bytes=26214400 "
            "reserved_bytes=52428800 free_bytes=78643200 held_bytes=25165824 full_equivalent_bytes=209715200 "
            "saved_bytes=183500800 generated_tokens=1250 generated_tokens_per_second=100.0 prompt_tokens=5025 "
            "prompt_tokens_per_second=10.0 requests=12 requests_per_second=2.0 rejected=2");
}

TEST(StatsView, DeviceMemoryByWhatItIsUsedFor) {
  v1::DeviceMemoryStats device;
  device.set_weights_bytes(8 * kMiB);
  device.set_kv_live_bytes(kMiB);
  device.set_kv_free_bytes(3 * kMiB);
  device.set_idle_bytes(4 * kMiB);
  device.set_staging_bytes(2 * kMiB);
  EXPECT_EQ(
      device_memory_line(device),
      "device memory 16.00 MiB: weights 8.00 MiB, live cache 1.00 MiB, free cache 3.00 MiB, workspace 0 B, steps 0 B, "
      "other 0 B, idle 4.00 MiB; pinned on the host 2.00 MiB");
}

}  // namespace
}  // namespace pkv::client
