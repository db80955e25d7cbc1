// A comparison under way (Request::compare_with): beside the baseline's own lanes, two sets of lanes for every policy,
// cut from the same prompt. One is fed the baseline's answer, the other goes on with its own.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kernels/sampling.h"
#include "server/engine/byte_account.h"
#include "server/engine/logit_edits.h"
#include "server/engine/request_result.h"
#include "server/engine/sequence_lanes.h"
#include "server/policy/compressor.h"

namespace pkv {

class Comparison {
 public:
  // One of the policies.
  struct Rival {
    std::unique_ptr<Compressor> compressor;         // until the prompt is done
    std::unique_ptr<SequenceLanes> teacher_forced;  // follows the baseline's answer
    std::unique_ptr<SequenceLanes> free_running;
    std::vector<LayerOutcome> outcomes;
    std::vector<TokenId> tokens;      // its own answer
    std::optional<LogitEdits> edits;  // of it
    bool ended = false;
    std::vector<double> kl;
    ByteAccount account;  // of both sets of lanes
    int32_t agreed = 0;   // places after the first with the baseline's best token

    void add_place(const RowComparison& with_baseline) {
      kl.push_back(with_baseline.kl);
      agreed += with_baseline.same_best;
    }
  };

  explicit Comparison(size_t policies) : rivals(policies) {}

  // The first place follows from the whole prompt for everybody.
  void start(TokenId first_token);
  bool done() const;

  std::vector<Rival> rivals;
};

// What came of a rival, but for its cache report. `answer`: the baseline's.
PolicyComparison summarise(const Comparison::Rival& rival, std::span<const TokenId> answer);

}  // namespace pkv
