// A request's tokens as they come, when it ends, and the report about its cache.
#include "server/engine/sequence.h"

#include <algorithm>
#include <utility>

#include "server/engine/cache_report.h"

namespace pkv {
namespace {

void add_final_positions(const SequenceLanes& lanes, std::vector<LayerOutcome>& outcomes) {
  std::vector<std::vector<std::vector<int32_t>>> layers = lanes.positions();
  for (size_t layer = 0; layer < outcomes.size(); ++layer) outcomes[layer].final_positions = std::move(layers[layer]);
}

// What a prefill that leaves `outcomes` behind holds at most.
uint64_t prefill_peak_bytes(const std::vector<LayerOutcome>& outcomes, const SequenceLanes& lanes,
                            int32_t prompt_tokens) {
  std::vector<int32_t> kept;
  for (const LayerOutcome& layer : outcomes) kept.insert(kept.end(), layer.kept.begin(), layer.kept.end());
  return cache_footprint({.geometry = lanes.geometry(),
                          .dtype = lanes.dtype(),
                          .prompt_tokens = prompt_tokens,
                          .own = {kept, kept, lanes.state_bytes()}})
      .peak_bytes;
}

}  // namespace

Sequence::Sequence(std::shared_ptr<const Request> wishes, std::shared_ptr<TokenSink> events, Contract terms)
    : request(std::move(wishes)),
      sink(std::move(events)),
      contract(std::move(terms)),
      rng(request->sampling.seed),
      ending_tokens_(request->sampling.stop_token_ids) {
  if (!request->sampling.ignore_eos) {
    ending_tokens_.insert(ending_tokens_.end(), request->end_tokens.begin(), request->end_tokens.end());
  }
}

std::span<const TokenId> Sequence::forbidden(int32_t length) const {
  if (length >= request->sampling.min_tokens) return {};
  return ending_tokens_;
}

bool Sequence::ends_with(TokenId token) const {
  return std::find(ending_tokens_.begin(), ending_tokens_.end(), token) != ending_tokens_.end();
}

void Sequence::accept(const TokenLogprob& token, absl::Time now) {
  generated.push_back(token.id);
  if (generated.size() == 1) first_token_at = now;
  last_token_at = now;
  const bool wants_more = sink->on_token(token);
  if (ends_with(token.id)) {
    finish_reason = FinishReason::kStop;
    matched_stop_token = token.id;
  } else if (!wants_more) {
    finish_reason = FinishReason::kStop;
  } else if (is_full(generated_tokens())) {
    finish_reason = FinishReason::kLength;
  }
}

RequestResult Sequence::take_result(uint64_t full_bytes_per_token, uint64_t shared_workspace_bytes) {
  RequestResult result{.finish_reason = *finish_reason,
                       .matched_stop_token = matched_stop_token,
                       .prompt_tokens = prompt_tokens(),
                       .completion_tokens = generated_tokens()};
  const absl::Time prefilled_at = generated.empty() ? ended_at : first_token_at;
  result.timings = {.queue = prefill_started_at - submitted,
                    .prefill = prefilled_at - prefill_started_at,
                    .compress = compress_time,
                    .decode = ended_at - prefilled_at,
                    .time_to_first_token = generated.empty() ? absl::ZeroDuration() : first_token_at - submitted,
                    .total = ended_at - submitted};
  if (request->record_positions) add_final_positions(*lanes, outcomes);
  result.cache = make_report({.spec = request->policy,
                              .plan = contract.own.plan,
                              .prompt_tokens = prompt_tokens(),
                              .logical_tokens = logical_tokens(),
                              .full_bytes_per_token = full_bytes_per_token,
                              .bytes = lanes->bytes(),
                              .byte_seconds = account.sums(),
                              .evicted_while_generating = lanes->evicted_while_generating(),
                              .workspace_bytes = workspace_bytes + shared_workspace_bytes,
                              .layers = std::move(outcomes)});
  for (size_t i = 0; i < request->compare_with.size(); ++i) {
    result.comparisons.push_back(rival_result(i, full_bytes_per_token));
  }
  return result;
}

PolicyComparison Sequence::rival_result(size_t index, uint64_t full_bytes_per_token) {
  Rival& rival = comparison->rivals[index];
  PolicyComparison summary = summarise(rival, generated);
  if (request->record_positions) add_final_positions(*rival.own, rival.outcomes);
  // Its part of each layer was taken from the baseline's; alone it would have held that layer itself.
  CacheBytes bytes = rival.own->bytes();
  bytes.peak = std::max(bytes.peak, prefill_peak_bytes(rival.outcomes, *rival.own, prompt_tokens()));
  summary.cache = make_report(
      {.spec = request->compare_with[index],
       .plan = contract.rivals[index].plan,
       .prompt_tokens = prompt_tokens(),
       .logical_tokens = prompt_tokens() + std::max<int32_t>(0, static_cast<int32_t>(rival.tokens.size()) - 1),
       .full_bytes_per_token = full_bytes_per_token,
       .bytes = bytes,
       .byte_seconds = rival.account.sums(),
       .evicted_while_generating = rival.own->evicted_while_generating(),
       .workspace_bytes = 0,
       .layers = std::move(rival.outcomes)});
  return summary;
}

}  // namespace pkv
