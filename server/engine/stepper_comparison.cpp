// The stepper's part in comparisons: lanes for every rival, and steps of baseline and rivals together.
#include <functional>
#include <utility>

#include "kernels/status_macros.h"
#include "server/engine/stepper.h"

namespace pkv {

absl::StatusOr<std::unique_ptr<Comparison>> Stepper::start_comparison(const Sequence& sequence) {
  const std::vector<PolicySpec>& specs = sequence.request().compare_with;
  if (specs.empty()) return nullptr;
  auto comparison = std::make_unique<Comparison>(specs.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    const Contract::Terms& terms = sequence.contract().rivals[i];
    Rival& rival = comparison->rivals[i];
    PKV_ASSIGN_OR_RETURN(rival.compressor, Compressor::create(model_.backend(), *terms.policy, terms.plan,
                                                              compressor_options(sequence, specs[i])));
    for (std::unique_ptr<SequenceLanes>* lanes : {&rival.taught, &rival.own}) {
      PKV_ASSIGN_OR_RETURN(*lanes, SequenceLanes::open(lane_options(sequence, specs[i], terms)));
    }
  }
  return comparison;
}

absl::Status Stepper::decode_comparison(Sequence& sequence) {
  Comparison& comparison = *sequence.comparison();
  // What each row's logits are for. The baseline comes first, for the others are compared with it.
  std::vector<std::function<void(std::span<float>)>> uses;
  rows_.clear();
  const auto add_row = [&](SequenceLanes& lanes, std::span<const TokenId> tokens, auto use) {
    const int32_t position = sequence.prompt_tokens() + static_cast<int32_t>(tokens.size()) - 1;
    rows_.push_back({.lanes = &lanes, .token = tokens.back(), .position = position});
    uses.emplace_back(std::move(use));
  };
  if (!sequence.answered()) {
    add_row(*sequence.lanes(), sequence.generated(), [&](std::span<float> logits) {
      comparison.set_baseline(logits);
      accept(sequence, logits, 0);
    });
    for (Rival& rival : comparison.rivals) {
      add_row(*rival.taught, sequence.generated(),
              [&](std::span<float> logits) { comparison.add_place(rival, logits); });
    }
  }
  for (Rival& rival : comparison.rivals) {
    if (rival.ended) continue;
    add_row(*rival.own, rival.tokens, [&](std::span<float> logits) {
      const TokenId token = choose(sequence, rival.tokens, logits, 0).id;
      rival.tokens.push_back(token);
      rival.ended = sequence.ends_with(token) || sequence.is_full(static_cast<int32_t>(rival.tokens.size()));
    });
  }
  rows_run_ += static_cast<int64_t>(rows_.size());
  return decode_step_->run(
      rows_, [&](size_t row, std::span<float> logits, float) { uses[row](logits); },
      [&](size_t, const absl::Status& status) { sequence.fail(no_slots(status)); });
}

}  // namespace pkv
