// A request's tokens as they come, when it ends, and the report about its cache.
#include "server/engine/sequence.h"

#include <algorithm>
#include <new>
#include <utility>

#include "server/engine/cache_report.h"

namespace pkv {
namespace {

constexpr absl::Duration kProgressInterval = absl::Milliseconds(100);

using LanePositions = std::vector<std::vector<int32_t>> LayerOutcome::*;

// Adds the reads that bring what the lanes hold now, as the outcomes' `positions`.
void read_positions(const SequenceLanes& lanes, LanePositions positions, std::vector<LayerOutcome>& outcomes,
                    std::vector<Fetch>& reads) {
  for (size_t layer = 0; layer < outcomes.size(); ++layer) {
    lanes.read_positions(static_cast<int32_t>(layer), outcomes[layer].*positions, reads);
  }
}

// What a prefill that leaves `outcomes` behind holds at most.
uint64_t prefill_peak_bytes(const std::vector<LayerOutcome>& outcomes, const SequenceLanes& lanes,
                            int32_t prompt_tokens) {
  CachePlan left{.kv_dtype = lanes.dtype(), .state_bytes = lanes.state_bytes()};
  for (const LayerOutcome& layer : outcomes) {
    left.lane_budgets.insert(left.lane_budgets.end(), layer.kept.begin(), layer.kept.end());
  }
  left.lane_limits = left.lane_budgets;
  return cache_footprint(lanes.geometry(), prompt_tokens, left).peak_bytes;
}

// Takes none itself.
absl::Status no_memory() { return {absl::StatusCode::kResourceExhausted, ""}; }

}  // namespace

Sequence::Sequence(Prepared prepared, JobClaim claim, std::shared_ptr<TokenSink> sink, absl::Time submitted)
    : request_(prepared.request()),
      contract_(std::move(prepared).take_contract()),
      claim_(std::move(claim)),
      sink_(std::move(sink)),
      ending_tokens_(ending_tokens(*request_)),
      submitted_(submitted),
      rng_(request_->sampling.seed) {}

bool Sequence::ends_with(std::span<const TokenId> answer) const {
  return answer.size() > request_->continuation.size() && ending_tokens_.contains(answer.back());
}

void Sequence::tell(absl::FunctionRef<void(TokenSink&)> what) {
  try {
    what(*sink_);
  } catch (const std::bad_alloc&) {
    fail(no_memory());
  }
}

void Sequence::admit() {
  phase_ = Phase::kPrefill;
  tell([](TokenSink& sink) { sink.on_start(); });
}

void Sequence::tell_prompt_logprobs(std::span<const TokenLogprob> tokens) {
  tell([&](TokenSink& sink) { sink.on_prompt_logprobs(tokens); });
}

void Sequence::start_prefill(Prefill prefill, std::unique_ptr<SequenceLanes> lanes, LogitEdits edits, absl::Time now) {
  prefill_ = std::make_unique<Prefill>(std::move(prefill));
  lanes_ = std::move(lanes);
  edits_.emplace(std::move(edits));
  prefill_started_at_ = progress_at_ = now;
}

int64_t Sequence::prompt_rows_done(int32_t layers) const {
  if (!prefill_) return 0;
  const int64_t whole_layers = std::min(prefill_->layer, layers);
  return whole_layers * prompt_tokens() + (prefill_->layer < layers ? prefill_->row : 0);
}

void Sequence::report_progress(int32_t layers, absl::Time now) {
  if (now - progress_at_ < kProgressInterval) return;
  progress_at_ = now;
  const double stages = layers + (request_->prompt_logprobs ? 1 : 0);
  const double row_share = static_cast<double>(prefill_->row) / prompt_tokens();
  tell([&](TokenSink& sink) { sink.on_progress((prefill_->layer + row_share) / stages); });
}

void Sequence::read_outcomes(std::vector<Fetch>& reads) {
  const auto read = [&](const Compressor& compressor, const SequenceLanes& lanes, std::vector<LayerOutcome>& outcomes) {
    compressor.read_recalls(outcomes, reads);
    if (request_->record_positions) read_positions(lanes, &LayerOutcome::kept_positions, outcomes, reads);
  };
  read(*prefill_->compressor, *lanes_, outcomes_);
  if (prefill_->sparse != nullptr) prefill_->sparse->read(reads);
  if (comparison_ != nullptr) {
    for (Comparison::Rival& rival : comparison_->rivals) read(*rival.compressor, *rival.free_running, rival.outcomes);
  }
}

void Sequence::end_prefill(const Backend& backend) {
  for (const auto& [from, to] : prefill_->cuts) compress_time_ += absl::Seconds(backend.elapsed(from, to));
  if (prefill_->sparse != nullptr) {
    prefill_report_ = prefill_->sparse->report();
  } else if (request_->policy.prefill != PrefillAttention::kDense) {
    prefill_report_.emplace();  // the prompt is so short that nothing was left out
  }
  lanes_->end_prompt();
  prefill_.reset();
  phase_ = Phase::kDecode;
}

void Sequence::accept(const TokenLogprob& token, absl::Time now) {
  generated_.push_back(token.id);
  if (generated_.size() == 1) first_token_at_ = now;
  last_token_at_ = now;
  bool wants_more = true;
  tell([&](TokenSink& sink) { wants_more = sink.on_token(token); });
  if (ends_with(generated_)) {
    finish_reason_ = FinishReason::kStop;
    matched_stop_token_ = token.id;
  } else if (!wants_more) {
    finish_reason_ = FinishReason::kStop;
  } else if (is_full(generated_tokens())) {
    finish_reason_ = FinishReason::kLength;
  }
}

void Sequence::release() {
  comparison_.reset();
  edits_.reset();
  lanes_.reset();
  prefill_.reset();
}

void Sequence::tell_end(std::variant<absl::Status, RequestResult>& outcome) try {
  if (auto* result = std::get_if<RequestResult>(&outcome)) {
    sink_->on_end(std::move(*result));
  } else {
    sink_->on_error(std::get<absl::Status>(outcome));
  }
  told_ = true;
} catch (const std::bad_alloc&) {
  if (std::holds_alternative<RequestResult>(outcome)) outcome = no_memory();
}

void Sequence::read_final_positions(std::vector<Fetch>& reads) {
  if (!request_->record_positions) return;
  read_positions(*lanes_, &LayerOutcome::final_positions, outcomes_, reads);
  if (comparison_ == nullptr) return;
  for (Comparison::Rival& rival : comparison_->rivals) {
    read_positions(*rival.free_running, &LayerOutcome::final_positions, rival.outcomes, reads);
  }
}

RequestResult Sequence::take_result(uint64_t full_bytes_per_token, uint64_t shared_workspace_bytes) {
  RequestResult result{.finish_reason = *finish_reason_,
                       .matched_stop_token = matched_stop_token_,
                       .prompt_tokens = prompt_tokens(),
                       .completion_tokens = generated_tokens()};
  const absl::Time prefilled_at = generated_.empty() ? ended_at_ : first_token_at_;
  result.timings = {.queue = prefill_started_at_ - submitted_,
                    .prefill = prefilled_at - prefill_started_at_,
                    .compress = compress_time_,
                    .decode = ended_at_ - prefilled_at,
                    .time_to_first_token = generated_.empty() ? absl::ZeroDuration() : first_token_at_ - submitted_,
                    .total = ended_at_ - submitted_};
  result.cache = make_report(request_->policy, contract_.own.plan, prompt_tokens(),
                             {.logical_tokens = logical_tokens(),
                              .full_bytes = static_cast<uint64_t>(logical_tokens()) * full_bytes_per_token,
                              .bytes = lanes_->bytes(),
                              .byte_seconds = counted_.bytes.sums(),
                              .evicted_entries = lanes_->evicted_while_generating(),
                              .workspace_bytes = contract_.cost.workspace_bytes + shared_workspace_bytes,
                              .layers = std::move(outcomes_),
                              .prefill = prefill_report_});
  for (size_t i = 0; i < request_->compare_with.size(); ++i) {
    result.comparisons.push_back(rival_result(i, full_bytes_per_token));
  }
  return result;
}

PolicyComparison Sequence::rival_result(size_t index, uint64_t full_bytes_per_token) {
  Comparison::Rival& rival = comparison_->rivals[index];
  PolicyComparison summary = summarise(rival, comparison_->first_counted, generated_);
  // Its part of each layer was taken from the baseline's; alone it would have held that layer itself.
  CacheBytes bytes = rival.free_running->bytes();
  const CachePlan& plan = contract_.rivals[index].plan;
  const uint64_t alone = plan.shares_model()  // where layers that were cut give more up later
                             ? plan.footprint.peak_bytes
                             : prefill_peak_bytes(rival.outcomes, *rival.free_running, prompt_tokens());
  bytes.peak = std::max(bytes.peak, alone);
  const int32_t logical_tokens = prompt_tokens() + std::max(0, static_cast<int32_t>(rival.tokens.size()) - 1);
  summary.cache = make_report(request_->compare_with[index], plan, prompt_tokens(),
                              {.logical_tokens = logical_tokens,
                               .full_bytes = static_cast<uint64_t>(logical_tokens) * full_bytes_per_token,
                               .bytes = bytes,
                               .byte_seconds = rival.account.sums(),
                               .evicted_entries = rival.free_running->evicted_while_generating(),
                               .layers = std::move(rival.outcomes)});
  return summary;
}

}  // namespace pkv
