// A comparison under way (Request::compare_with): beside the baseline's own lanes, two sets of lanes for every policy,
// cut from the same prompt. One is fed the baseline's answer, the other goes on with its own.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "server/engine/byte_account.h"
#include "server/engine/request_result.h"
#include "server/engine/sequence_lanes.h"
#include "server/policy/compressor.h"

namespace pkv {

struct Rival {
  std::unique_ptr<Compressor> compressor;  // until the prompt is done
  std::unique_ptr<SequenceLanes> taught;   // follows the baseline's answer
  std::unique_ptr<SequenceLanes> own;
  std::vector<LayerOutcome> outcomes;
  std::vector<TokenId> tokens;  // its own answer
  bool ended = false;
  std::vector<double> kl;
  ByteAccount account;  // of both sets of lanes
  int32_t agreed = 0;   // places after the first with the baseline's best token
};

class Comparison {
 public:
  explicit Comparison(size_t policies) : rivals(policies) {}

  // The place's logits [V] of the baseline; those of its rivals for the same place follow.
  void set_baseline(std::span<const float> logits);
  void add_place(Rival& rival, std::span<const float> logits) const;
  // The first place follows from the whole prompt for everybody.
  void start(TokenId first_token);
  bool done() const;

  std::vector<Rival> rivals;

 private:
  std::vector<double> baseline_;  // log-probabilities [V]
  TokenId baseline_best_ = 0;
};

// What came of a rival, but for its cache report. `answer`: the baseline's.
PolicyComparison summarise(const Rival& rival, std::span<const TokenId> answer);

}  // namespace pkv
