// What is taken for a traceparent and what is not.
#include "server/telemetry/trace_context.h"

#include <gtest/gtest.h>

namespace pkv {
namespace {

const std::string kTrace = "4bf92f3577b34da6a3ce929d0e0e4736";
const std::string kSpan = "00f067aa0ba902b7";

TEST(Traceparent, IsRead) {
  const auto context = parse_traceparent("00-" + kTrace + "-" + kSpan + "-01");
  ASSERT_TRUE(context.has_value());
  EXPECT_EQ(context->trace_id, kTrace);
  EXPECT_EQ(context->span_id, kSpan);
}

TEST(Traceparent, LaterVersionsMayGoOn) {
  EXPECT_TRUE(parse_traceparent("01-" + kTrace + "-" + kSpan + "-01").has_value());
  EXPECT_TRUE(parse_traceparent("cc-" + kTrace + "-" + kSpan + "-01-what the future will be").has_value());
  EXPECT_FALSE(parse_traceparent("cc-" + kTrace + "-" + kSpan + "-01.what").has_value());
  EXPECT_FALSE(parse_traceparent("cc-" + kTrace + "-" + kSpan + "-01-" + std::string(1000, 'x')).has_value());
}

TEST(Traceparent, AnythingElseIsIgnored) {
  const std::string zeros32(32, '0'), zeros16(16, '0');
  for (const std::string& wrong :
       {std::string(), std::string("00"), "00-" + kTrace + "-" + kSpan, "00-" + kTrace + "-" + kSpan + "-01-x",
        "00-" + kTrace + "-" + kSpan + "-0g", "ff-" + kTrace + "-" + kSpan + "-01",
        "0G-" + kTrace + "-" + kSpan + "-01", "00-" + zeros32 + "-" + kSpan + "-01",
        "00-" + kTrace + "-" + zeros16 + "-01", "00_" + kTrace + "-" + kSpan + "-01",
        "00-" + kTrace + "_" + kSpan + "-01", "00-" + kTrace + "-" + kSpan + "_01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-" + kSpan + "-01", "00-" + kTrace.substr(1) + "\n-" + kSpan + "-01"}) {
    EXPECT_FALSE(parse_traceparent(wrong).has_value()) << wrong;
  }
}

}  // namespace
}  // namespace pkv
