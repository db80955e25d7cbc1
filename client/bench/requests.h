// The requests of a run: number i is the same for the same seed, whatever the server answered to others.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "client/bench/options.h"
#include "client/bench/trace.h"
#include "pyramidkv/v1/generation.pb.h"

namespace pkv::client {

// What prompts are cut from.
struct PromptPool {
  std::vector<uint32_t> prefix;  // what the model wants in front of a text
  std::vector<uint32_t> tokens;  // of a text; empty: random ids
  uint32_t vocab_size = 0;
  uint32_t max_model_len = 0;

  // `count` tokens: the prefix, then the text from a random place on, from its beginning again where it ends. Never
  // many more than the model takes, which are refused however many they are.
  void fill(int64_t count, WorkloadRandom& random, v1::TokenIds& ids) const;
};

class BenchRequests {
 public:
  struct Made {
    v1::GenerateRequest request;
    size_t policy = 0;  // in the mix
  };

  // `mix` is the plan's with the trace's behind it, `drawn` how many of it are drawn by weight. All are kept by
  // reference.
  BenchRequests(const BenchPlan& plan, const PromptPool& pool, const std::vector<TraceLine>& trace,
                const std::vector<BenchPolicy>& mix, size_t drawn);

  Made make(uint64_t index) const;

 private:
  const BenchPlan& plan_;
  const PromptPool& pool_;
  const std::vector<TraceLine>& trace_;
  const std::vector<BenchPolicy>& mix_;
  WeightedChoice choice_;
  std::string run_;  // in front of every request id; no two runs have the same
};

}  // namespace pkv::client
