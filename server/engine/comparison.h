// A comparison under way (Request::compare_with): beside the baseline's own lanes, two sets of lanes for every policy,
// cut from the same prompt. One is fed the baseline's answer, the other goes on with its own.
#pragma once

#include <algorithm>
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
    int32_t agreed = 0;   // places that count with the baseline's best token

    void add_place(const RowComparison& with_baseline, size_t counted_from) {
      if (kl.size() >= counted_from) agreed += with_baseline.same_best;
      kl.push_back(with_baseline.kl);
    }
  };

  // `continuation`: tokens that every answer begins with, instead of what was chosen.
  Comparison(size_t policies, size_t continuation)
      : rivals(policies), first_counted(std::max<size_t>(1, continuation)) {}

  // The first place follows from the whole prompt for everybody.
  void start(TokenId first_token);
  bool done() const;
  // Of its next step.
  size_t rows(bool answered) const;

  std::vector<Rival> rivals;
  // Of the answer's places in mean and agreement: what comes before was the same for everybody.
  const size_t first_counted;
};

// What came of a rival, but for its cache report. `answer`: the baseline's.
PolicyComparison summarise(const Comparison::Rival& rival, size_t first_counted, std::span<const TokenId> answer);

}  // namespace pkv
