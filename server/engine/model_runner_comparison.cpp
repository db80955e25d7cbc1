// The model runner's part in comparisons: lanes for every rival, and steps of baseline and rivals together.
#include <functional>
#include <utility>

#include "kernels/status_macros.h"
#include "server/engine/model_runner.h"
#include "server/engine/next_token.h"

namespace pkv {

absl::StatusOr<std::unique_ptr<Comparison>> ModelRunner::start_comparison(const Sequence& sequence) {
  const std::vector<PolicySpec>& specs = sequence.request().compare_with;
  if (specs.empty()) return nullptr;
  auto comparison = std::make_unique<Comparison>(specs.size(), sequence.request().continuation.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    const Contract::Terms& terms = sequence.contract().rivals[i];
    Comparison::Rival& rival = comparison->rivals[i];
    PKV_ASSIGN_OR_RETURN(rival.compressor, Compressor::create(model_.backend(), *terms.policy, terms.plan,
                                                              compressor_options(sequence, specs[i])));
    for (std::unique_ptr<SequenceLanes>* lanes : {&rival.teacher_forced, &rival.free_running}) {
      PKV_ASSIGN_OR_RETURN(*lanes,
                           SequenceLanes::open(lane_options(sequence, specs[i], terms, /*holds_whole_layers=*/false)));
    }
    PKV_ASSIGN_OR_RETURN(auto edits, make_edits(sequence));
    rival.edits.emplace(std::move(edits));
  }
  return comparison;
}

absl::Status ModelRunner::decode_comparison(Sequence& sequence) {
  const Request& request = sequence.request();
  Comparison& comparison = *sequence.comparison();
  // What each row's output is for. The baseline comes first, for the others are compared with it.
  std::vector<std::function<void(const OutputHead::Result&)>> uses;
  rows_.clear();
  const auto add_row = [&](SequenceLanes& lanes, std::span<const TokenId> tokens, const OutputHead::Row& wanted,
                           auto use) {
    const int32_t position = sequence.prompt_tokens() + static_cast<int32_t>(tokens.size()) - 1;
    rows_.push_back({.lanes = &lanes, .token = tokens.back(), .position = position, .output = wanted});
    uses.emplace_back(std::move(use));
  };
  if (!sequence.answered()) {
    OutputHead::Row baseline = next_token_row(request, sequence.generated(), sequence.edits(), sequence.rng());
    baseline.comparison = OutputHead::Row::Comparison::kBaseline;
    add_row(*sequence.lanes(), sequence.generated(), baseline,
            [&](const OutputHead::Result& output) { accept(sequence, output); });
    for (Comparison::Rival& rival : comparison.rivals) {
      add_row(*rival.teacher_forced, sequence.generated(), {.comparison = OutputHead::Row::Comparison::kCompared},
              [&](const OutputHead::Result& output) { rival.add_place(output.comparison, comparison.first_counted); });
    }
  }
  for (Comparison::Rival& rival : comparison.rivals) {
    if (rival.ended) continue;
    add_row(*rival.free_running, rival.tokens, next_token_row(request, rival.tokens, *rival.edits, sequence.rng()),
            [&](const OutputHead::Result& output) {
              const std::optional<TokenLogprob> token = next_token(request, rival.tokens, output);
              if (!token) return sequence.fail(not_a_number());
              rival.tokens.push_back(token->id);
              rival.ended =
                  sequence.ends_with(rival.tokens) || sequence.is_full(static_cast<int32_t>(rival.tokens.size()));
            });
  }
  rows_run_ += static_cast<int64_t>(rows_.size());
  return decode_step_->run(
      rows_, [&](size_t row, const OutputHead::Result& output) { uses[row](output); },
      [&](size_t, const absl::Status& status) { sequence.fail(no_slots(status)); });
}

}  // namespace pkv
