// The mutable state of one request from submission to its end. But for cancel() and what submission sets once,
// everything belongs to the engine thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/engine/byte_account.h"
#include "server/engine/comparison.h"
#include "server/engine/contract.h"
#include "server/engine/logit_edits.h"
#include "server/engine/request_result.h"
#include "server/engine/scheduler.h"
#include "server/engine/sequence_lanes.h"
#include "server/engine/sparse_prefill.h"
#include "server/policy/compressor.h"

namespace pkv {

class Sequence {
 public:
  enum class Phase : uint8_t { kWaiting, kPrefill, kDecode };  // kPrefill from admission on

  // What reading the prompt needs: there from the first unit until the prompt is done.
  struct Prefill {
    Tensor residual;  // [prompt tokens, D]: x between the layers
    std::unique_ptr<Compressor> compressor;
    std::unique_ptr<CompressorScratch> scratch;     // of cuts; nullptr where nothing is scored
    std::unique_ptr<SparsePrefill> sparse;          // nullptr where rows attend to everything
    std::vector<std::pair<int64_t, int64_t>> cuts;  // Backend::mark() before and after a unit's part of one
    int32_t layer = 0;        // of the next unit; == layers: the output head over the prompt's rows
    int32_t row = 0;          // first of the next unit; == prompt tokens: the layer is being cut
    size_t policies_cut = 0;  // so many are done with the layer, a comparison's rivals first
    bool cutting = false;     // the next of them has begun
  };
  // What the counters have seen of it so far.
  struct Counted {
    bool queue = false, prompt = false;
    int32_t generated = 0;
    uint64_t evicted = 0;  // while generating
    absl::Time token_at;   // the last of them
    absl::Time bytes_at;   // the byte accounts are true until then
    ByteAccount bytes;     // of its own lanes
  };

  Sequence(Prepared prepared, JobClaim claim, std::shared_ptr<TokenSink> sink, absl::Time submitted);

  // ---- by any thread
  void cancel() { cancelled_ = true; }
  bool cancelled() const { return cancelled_; }

  // ---- set at submission
  void set_job(JobId job) { job_ = job; }
  JobId job() const { return job_; }
  absl::Time submitted() const { return submitted_; }
  const Request& request() const { return *request_; }
  const Contract& contract() const { return contract_; }
  const JobClaim& claim() const { return claim_; }
  const TokenSink& sink() const { return *sink_; }
  int32_t prompt_tokens() const { return static_cast<int32_t>(request_->prompt.size()); }

  // ---- where it stands
  Phase phase() const { return phase_; }
  bool answered() const { return finish_reason_.has_value(); }
  std::optional<FinishReason> finish_reason() const { return finish_reason_; }
  const absl::Status& failure() const { return failure_; }
  bool done() const { return !failure_.ok() || (answered() && (!comparison_ || comparison_->done())); }
  bool told() const { return told_; }  // its sink knows the end

  // ---- its course
  // Memory is reserved: tells the sink. Where the process has no memory for what the sink is told, here and below, this
  // request ends with RESOURCE_EXHAUSTED, and no other.
  void admit();
  // What it was admitted for is there.
  void start_prefill(Prefill prefill, std::unique_ptr<SequenceLanes> lanes, LogitEdits edits, absl::Time now);
  void set_comparison(std::unique_ptr<Comparison> comparison) { comparison_ = std::move(comparison); }
  bool prefill_started() const { return lanes_ != nullptr; }
  // A layer of the prompt was cut.
  void add_outcome(LayerOutcome outcome) { outcomes_.push_back(std::move(outcome)); }
  // All layers were: adds the reads of what the backend knows of that, which have to be done before end_prefill().
  void read_outcomes(std::vector<Fetch>& reads);
  void tell_prompt_logprobs(std::span<const TokenLogprob> tokens);
  // Tells the sink how far the prompt is, now and then.
  void report_progress(int32_t layers, absl::Time now);
  // The prompt is done: gives its part of the memory back.
  void end_prefill(const Backend& backend);
  // Takes the next token of the answer: tells the sink and ends the answer where it has to. `now` for the timings.
  void accept(const TokenLogprob& token, absl::Time now);
  // No answer was asked for.
  void end_without_answer() { finish_reason_ = FinishReason::kLength; }
  void fail(absl::Status failure) { failure_ = std::move(failure); }
  void set_ended(absl::Time now) { ended_at_ = now; }
  // It is done without failure, its lanes still open: adds the reads that have to be done before take_result().
  void read_final_positions(std::vector<Fetch>& reads);
  // Its result. Takes the layers' outcomes along.
  RequestResult take_result(uint64_t full_bytes_per_token, uint64_t shared_workspace_bytes);
  // Gives everything it holds back.
  void release();
  // The last its sink hears. Where the process has no memory for that, the sink is not told() yet, and the outcome is
  // the failure that is left to be told.
  void tell_end(std::variant<absl::Status, RequestResult>& outcome);

  // ---- what it has so far
  const std::vector<TokenId>& generated() const { return generated_; }
  int32_t generated_tokens() const { return static_cast<int32_t>(generated_.size()); }
  // Tokens whose entries a full cache would hold by now; the last generated token is not written.
  int32_t logical_tokens() const { return prompt_tokens() + std::max(0, generated_tokens() - 1); }
  // The same, in tokens of one layer, added up over the layers: a prompt is read layer by layer.
  int64_t prompt_rows_done(int32_t layers) const;
  Prefill* prefill() const { return prefill_.get(); }           // nullptr: not begun, or done
  SequenceLanes* lanes() const { return lanes_.get(); }         // nullptr: not begun
  Comparison* comparison() const { return comparison_.get(); }  // nullptr: nothing is compared
  const std::vector<LayerOutcome>& outcomes() const { return outcomes_; }
  absl::Time prefill_started_at() const { return prefill_started_at_; }
  absl::Time first_token_at() const { return first_token_at_; }
  absl::Time last_token_at() const { return last_token_at_; }
  absl::Time ended_at() const { return ended_at_; }
  absl::Duration compress_time() const { return compress_time_; }
  Counted& counted() { return counted_; }

  // ---- how its answer is made
  std::mt19937_64& rng() { return rng_; }
  LogitEdits& edits() { return *edits_; }  // once begun
  // Whether an answer's last token ends it; whether `length` tokens are all that may be.
  bool ends_with(std::span<const TokenId> answer) const;
  bool is_full(int32_t length) const { return length >= request_->sampling.max_tokens; }

 private:
  void tell(absl::FunctionRef<void(TokenSink&)> what);
  PolicyComparison rival_result(size_t index, uint64_t full_bytes_per_token);

  const std::shared_ptr<const Request> request_;
  const Contract contract_;
  const JobClaim claim_;
  const std::shared_ptr<TokenSink> sink_;
  const std::unordered_set<TokenId> ending_tokens_;
  const absl::Time submitted_;
  JobId job_ = 0;
  std::atomic<bool> cancelled_ = false;

  Phase phase_ = Phase::kWaiting;
  std::optional<FinishReason> finish_reason_;
  std::optional<TokenId> matched_stop_token_;
  absl::Status failure_;
  bool told_ = false;

  std::vector<TokenId> generated_;
  std::mt19937_64 rng_;
  std::vector<LayerOutcome> outcomes_;
  std::optional<PrefillReport> prefill_report_;
  absl::Time prefill_started_at_, progress_at_, first_token_at_, last_token_at_, ended_at_;
  absl::Duration compress_time_;
  Counted counted_;

  std::unique_ptr<Prefill> prefill_;
  std::unique_ptr<SequenceLanes> lanes_;
  std::optional<LogitEdits> edits_;
  std::unique_ptr<Comparison> comparison_;
};

}  // namespace pkv
