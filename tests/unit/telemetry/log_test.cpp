// What a line of the log looks like, whatever its values hold.
#include "server/telemetry/log.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "server/telemetry/escape.h"

namespace pkv {
namespace {

using Json = nlohmann::json;

std::string text(const LogValue& value) { return value.as_text(); }

Json parsed(std::string_view message, const std::vector<LogField>& fields) {
  return Json::parse("{" + json_line(message, fields) + "}");
}

TEST(LogLine, NumbersAreNumbers) {
  const Json line = parsed("done", {{"requests", 3},
                                    {"bytes", std::numeric_limits<uint64_t>::max()},
                                    {"saved", int64_t{-5}},
                                    {"seconds", 0.25},
                                    {"good", true},
                                    {"code", "OK"}});
  EXPECT_TRUE(line["requests"].is_number_integer());
  EXPECT_EQ(line["bytes"].get<uint64_t>(), std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(line["saved"], -5);
  EXPECT_EQ(line["seconds"], 0.25);
  EXPECT_EQ(line["good"], true);
  EXPECT_EQ(line["code"], "OK");
  EXPECT_EQ(line["message"], "done");
}

TEST(LogLine, JsonHasNoWordForInfinity) {
  EXPECT_TRUE(parsed("x", {{"value", std::numeric_limits<double>::infinity()}})["value"].is_null());
  EXPECT_TRUE(parsed("x", {{"value", std::numeric_limits<double>::quiet_NaN()}})["value"].is_null());
  EXPECT_EQ(text(std::numeric_limits<double>::infinity()), "inf");
}

TEST(LogLine, TextCanBeTakenApartAgain) {
  const std::vector<LogField> fields = {{"address", "127.0.0.1:1"}, {"model", "a b"},  {"empty", ""},
                                        {"quote", "a\"b"},          {"equals", "a=b"}, {"seconds", 1.5}};
  EXPECT_EQ(text_line("ready", fields),
            R"(ready address=127.0.0.1:1 model="a b" empty="" quote="a\"b" equals="a=b" seconds=1.5)");
}

TEST(LogLine, AMessageStaysOneLine) {
  EXPECT_EQ(text_line("no \"file\"\n\x1b[31mred", {}), R"(no "file"\u000a\u001b[31mred)");
}

TEST(Escape, ControlCharacters) {
  EXPECT_EQ(json_escape(std::string("a\0b", 3)), R"(a\u0000b)");
  EXPECT_EQ(json_escape("\r\n\t\x1b"), R"(\u000d\u000a\u0009\u001b)");
  EXPECT_EQ(json_escape("\x7f"), R"(\u007f)");
  EXPECT_EQ(json_escape("\xC2\x9B"), R"(\u009b)");  // C1: the one-byte form of ESC [
  EXPECT_EQ(json_escape("\xC2\xA0"), "\xC2\xA0");
}

// An id that reads in another order than it is written, or has more in it than anybody sees.
TEST(Escape, WhatReordersOrHidesText) {
  EXPECT_EQ(json_escape("a\u202Ecba\u202C"), R"(a\u202ecba\u202c)");
  EXPECT_EQ(json_escape("\u202A\u2066\u2069"), R"(\u202a\u2066\u2069)");
  EXPECT_EQ(json_escape("\u200E\u200F\u061C"), R"(\u200e\u200f\u061c)");
  EXPECT_EQ(json_escape("\u200B\u200D\u2060\uFEFF\u00AD\u3164"), R"(\u200b\u200d\u2060\ufeff\u00ad\u3164)");
  EXPECT_EQ(json_escape("\u2028\u2029\uFFF9"), R"(\u2028\u2029\ufff9)");
  EXPECT_EQ(json_escape("\U000E0041\U000E0FFF"), R"(\udb40\udc41\udb43\udfff)");  // tags: invisible ASCII
  EXPECT_EQ(escape_controls("\u202E\"x\""), R"(\u202e"x")");
  EXPECT_EQ(parsed("x", {{"request_id", "\U000E0041"}})["request_id"], "\U000E0041");
  EXPECT_EQ(text("\u202Ex"), R"("\u202ex")");
  // Their neighbours, and text that is written from right to left.
  for (const char* plain : {"\u2010", "\u202F", "\u2070", "\u05E9\u05DC", "\u0645", "\uFF9F", "\U000E1000"})
    EXPECT_EQ(json_escape(plain), plain);
}

TEST(Escape, WhatIsNotUtf8) {
  EXPECT_EQ(json_escape("a\xFFz"), R"(a\ufffdz)");
  EXPECT_EQ(json_escape("\x9B"), R"(\ufffd)");
  EXPECT_EQ(json_escape("\xC0\x80"), R"(\ufffd\ufffd)");            // overlong
  EXPECT_EQ(json_escape("\xED\xA0\x80"), R"(\ufffd\ufffd\ufffd)");  // a surrogate
  EXPECT_EQ(json_escape("\xF4\x90\x80\x80"), R"(\ufffd\ufffd\ufffd\ufffd)");
  EXPECT_EQ(json_escape("\xE2\x82"), R"(\ufffd\ufffd)");  // cut off
  EXPECT_EQ(json_escape("\xE2\x82\xAC \xF0\x9F\x98\x80"), "\xE2\x82\xAC \xF0\x9F\x98\x80");
}

TEST(Escape, ValuesInBothFormats) {
  const std::string id = "id\x1b]0;title\x07";
  EXPECT_EQ(text(id), R"("id\u001b]0;title\u0007")");
  EXPECT_EQ(parsed("x", {{"request_id", id}})["request_id"], id);
}

}  // namespace
}  // namespace pkv
