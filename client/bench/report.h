// What a run has shown: a table for people, JSON for programs.
#pragma once

#include <string>
#include <vector>

#include "client/bench/figures.h"
#include "client/bench/options.h"

namespace pkv::client {

struct BenchReport {
  const BenchPlan& plan;
  const std::vector<BenchPolicy>& mix;
  const BenchRecord& record;
  std::string target, model, server_version;
  std::string started_at;  // RFC 3339
  double seconds = 0;      // of the measured part
  bool interrupted = false;
};

// A column for all calls and one for every policy that was asked for.
std::string bench_table(const BenchReport& report);
std::string bench_json(const BenchReport& report);

}  // namespace pkv::client
