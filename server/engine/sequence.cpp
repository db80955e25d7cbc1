// A request's tokens as they come, when it ends, and the report about its cache.
#include "server/engine/sequence.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace pkv {
namespace {

std::string why_not_compressed(const Sequence& sequence) {
  const PolicyRow& policy = policy_row(sequence.request->policy.kind);
  if (!policy.takes_budget) return absl::StrCat("policy ", std::string(policy.name), " keeps everything");
  return absl::StrCat("prompt of ", sequence.prompt_tokens(), " tokens is within the budget of ",
                      sequence.contract.figures.budget_tokens);
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

std::span<const TokenId> Sequence::forbidden() const {
  if (generated_tokens() >= request->sampling.min_tokens) return {};
  return ending_tokens_;
}

bool Sequence::ends_with(TokenId token) const {
  return std::find(ending_tokens_.begin(), ending_tokens_.end(), token) != ending_tokens_.end();
}

void Sequence::accept(const TokenLogprob& token, absl::Time now) {
  generated.push_back(token.id);
  if (generated.size() == 1) first_token_at = now;
  const bool wants_more = sink->on_token(token);
  if (ends_with(token.id)) {
    finish_reason = FinishReason::kStop;
    matched_stop_token = token.id;
  } else if (!wants_more) {
    finish_reason = FinishReason::kStop;
  } else if (generated_tokens() >= request->sampling.max_tokens) {
    finish_reason = FinishReason::kLength;
  }
}

uint64_t Sequence::evicted_entries() const {
  uint64_t evicted = 0;
  for (const LayerOutcome& outcome : outcomes) {
    for (const int32_t kept : outcome.kept) evicted += static_cast<uint64_t>(prompt_tokens() - kept);
  }
  return evicted;
}

RequestResult Sequence::take_result(const CacheBytes& bytes, uint64_t bytes_per_token,
                                    uint64_t shared_workspace_bytes) {
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

  CacheReport& report = result.cache;
  report.budget_tokens = contract.figures.budget_tokens;
  report.logical_tokens = logical_tokens();
  report.full_bytes = static_cast<uint64_t>(report.logical_tokens) * bytes_per_token;
  report.bytes = bytes;
  report.saved_bytes =
      static_cast<int64_t>(report.full_bytes) - static_cast<int64_t>(bytes.allocated + bytes.auxiliary);
  report.evicted_entries = evicted_entries();
  for (const LayerOutcome& outcome : outcomes) {
    const bool cut =
        std::any_of(outcome.kept.begin(), outcome.kept.end(), [&](int32_t kept) { return kept < prompt_tokens(); });
    report.compressions += cut ? 1 : 0;
  }
  report.compressed = report.compressions > 0;
  if (!report.compressed) report.not_compressed_reason = why_not_compressed(*this);
  report.workspace_bytes = workspace_bytes + shared_workspace_bytes;
  report.layers = std::move(outcomes);
  return result;
}

}  // namespace pkv
