#include "server/telemetry/request_metrics.h"

#include <gmock/gmock.h>

#include <thread>

namespace pkv {
namespace {

using ::testing::Pair;
using ::testing::UnorderedElementsAre;

RequestMetrics::Labels labels() {
  return {.policies = {"full", "h2o"},
          .codes = {"OK", "NOT_FOUND", "INTERNAL"},
          .reasons = {"QUEUE_FULL"},
          .can_occur = [](std::string_view policy, std::string_view code) {
            return (policy == kNoPolicy) == (code == "NOT_FOUND") && code != "INTERNAL";
          }};
}

TEST(RequestMetrics, OnlyWhatCanOccurIsThereFromTheStart) {
  const RequestMetrics::Snapshot snapshot = RequestMetrics(labels()).snapshot();
  EXPECT_THAT(snapshot.requests, UnorderedElementsAre(Pair(Pair("full", "OK"), 0), Pair(Pair("h2o", "OK"), 0),
                                                      Pair(Pair("none", "NOT_FOUND"), 0)));
  EXPECT_THAT(snapshot.rejected, UnorderedElementsAre(Pair("QUEUE_FULL", 0)));
}

TEST(RequestMetrics, WhatShouldNotOccurIsCountedToo) {
  RequestMetrics metrics(labels());
  metrics.count_end("full", "OK");
  metrics.count_end("full", "OK");
  metrics.count_end("h2o", "INTERNAL");
  metrics.count_end("h2o", "TEAPOT");
  metrics.count_end("of tomorrow", "OK");
  metrics.count_rejection("QUEUE_FULL");
  metrics.count_rejection("");
  const RequestMetrics::Snapshot snapshot = metrics.snapshot();
  EXPECT_THAT(snapshot.requests, UnorderedElementsAre(Pair(Pair("full", "OK"), 2), Pair(Pair("h2o", "OK"), 0),
                                                      Pair(Pair("h2o", "INTERNAL"), 1), Pair(Pair("h2o", "OTHER"), 1),
                                                      Pair(Pair("none", "OK"), 1), Pair(Pair("none", "NOT_FOUND"), 0)));
  EXPECT_THAT(snapshot.rejected, UnorderedElementsAre(Pair("QUEUE_FULL", 1), Pair("OTHER", 1)));
}

TEST(RequestMetrics, CountsFromManyThreads) {
  RequestMetrics metrics(labels());
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        for (int j = 0; j < 10'000; ++j) {
          metrics.count_end("h2o", "OK");
          metrics.count_rejection("QUEUE_FULL");
        }
      });
    }
  }
  EXPECT_EQ(metrics.snapshot().requests.at({"h2o", "OK"}), 40'000u);
  EXPECT_EQ(metrics.snapshot().rejected.at("QUEUE_FULL"), 40'000u);
}

}  // namespace
}  // namespace pkv
