// Every way people write a size.
#include "client/sizes.h"

#include <gtest/gtest.h>

namespace pkv::client {
namespace {

constexpr uint64_t kMi = uint64_t{1} << 20;

TEST(ParseBytes, UnitsInAnySpelling) {
  const std::pair<const char*, uint64_t> kCases[] = {
      {"4096B", 4096},      {"4096b", 4096},      {"4k", 4096},       {"4K", 4096},           {"4KiB", 4096},
      {"4kib", 4096},       {"4kB", 4000},        {"4KB", 4000},      {"4kb", 4000},          {"4M", 4 * kMi},
      {"4m", 4 * kMi},      {"4MiB", 4 * kMi},    {"4mib", 4 * kMi},  {"4 MiB", 4 * kMi},     {" 4  mib ", 4 * kMi},
      {"512mb", 512000000}, {"512MB", 512000000}, {"2G", 2048 * kMi}, {"2gib", 2048 * kMi},   {"1GB", 1000000000},
      {"0.5M", kMi / 2},    {"1.5 kB", 1500},     {"1T", kMi * kMi},  {"1tb", 1000000000000}, {"0B", 0}};
  for (const auto& [text, bytes] : kCases) EXPECT_EQ(parse_bytes(text, false), bytes) << text;
}

TEST(ParseBytes, ABareNumberWhereItIsAllowed) {
  EXPECT_EQ(parse_bytes("4096", true), 4096u);
  EXPECT_EQ(parse_bytes("4096", false), std::nullopt);
}

TEST(ParseBytes, WhatIsNoSize) {
  for (const char* text : {"", "M", "MiB", "4 apples", "4 bits", "4MM", "4Mi", "4iB", "-1MiB", "nanMiB", "infG",
                           "1e300GiB", "1e15GiB", "12%", "four MiB", "4MiBs"})
    EXPECT_EQ(parse_bytes(text, true), std::nullopt) << text;
}

TEST(SizeWord, IsASizeAndRoundsUpWhereAsked) {
  EXPECT_EQ(size_word(0), "0B");
  EXPECT_EQ(size_word(1023), "1023B");
  EXPECT_EQ(size_word(1211 << 10), "1211KiB");
  EXPECT_EQ(size_word(4 << 20), "4MiB");
  EXPECT_EQ(size_word(uint64_t{3} << 30), "3GiB");
  EXPECT_EQ(size_word_above(1240064), "1211KiB");
  EXPECT_EQ(size_word_above(1240065), "1212KiB");
  EXPECT_EQ(parse_bytes(size_word(1240064), false), 1240064u);
}

}  // namespace
}  // namespace pkv::client
