// The words of `pyramidkv bench` and what they mean.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "client/bench/arrivals.h"
#include "client/bench/workload.h"
#include "client/policy_options.h"

namespace pkv::client {

// As they stand on the command line; empty: not given.
struct BenchOptions {
  std::string rate, concurrency, trace, speed = "1", spacing = "poisson";
  std::string duration, requests, warmup = "0";
  std::string policies, prompt_tokens = "512", max_tokens = "64";
  std::string prompt_file, prompt_token_ids = "text", model;
  bool ignore_eos = true;
  std::string channels = "1", max_in_flight = "1024", timeout, service_config;
  std::string ttft_limit, itl_limit;
  std::string seed = "0", json;
  bool fail_on_error = false;
};

// Different ones in a mix and a trace: each has figures of its own.
inline constexpr size_t kMostBenchPolicies = 64;

// A policy of the mix.
struct BenchPolicy {
  std::string text;  // as it was written, without the weight
  v1::CachePolicy policy;
  uint32_t weight = 1;
};

// What is to be done, checked.
struct BenchPlan {
  std::optional<ArrivalPlan> arrivals;  // open loop
  std::optional<uint32_t> concurrency;  // closed loop; neither: a trace
  std::string trace;
  double speed = 1;
  // Of the measured part; at least one of them unless there is a trace.
  std::optional<double> duration;
  std::optional<uint64_t> requests;
  Warmup warmup;
  std::vector<BenchPolicy> policies;
  LengthDistribution prompt_tokens, max_tokens;
  std::string prompt_file, service_config_file, model;
  bool random_prompts = false, ignore_eos = true;
  uint32_t channels = 1, max_in_flight = 1;
  std::optional<double> timeout;
  std::optional<double> ttft_limit, itl_limit;
  uint64_t seed = 0;
  // Every option as it was given or by default, for the report.
  std::vector<std::pair<std::string, std::string>> words;
};

// Returns an empty string, or what is wrong with which option and what is right.
std::string plan_bench(const BenchOptions& options, BenchPlan& plan);

// NAME[:BUDGET[:SCOPE[:FORMAT]]][@WEIGHT],...: the notation of `compare --policies` with a weight. An empty list is the
// server's default policy.
std::string parse_mix(const std::string& list, std::vector<BenchPolicy>& mix);

}  // namespace pkv::client
