// The mutable state of one request from submission to its end. But for `cancelled` and what submission sets once,
// everything belongs to the engine thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/engine/admission.h"
#include "server/engine/byte_account.h"
#include "server/engine/comparison.h"
#include "server/engine/request.h"
#include "server/engine/scheduler.h"
#include "server/engine/sequence_lanes.h"
#include "server/policy/compressor.h"

namespace pkv {

enum class SequencePhase : uint8_t { kWaiting, kPrefill, kDecode };  // kPrefill from admission on

class Sequence {
 public:
  Sequence(std::shared_ptr<const Request> wishes, std::shared_ptr<TokenSink> events, Contract terms);

  int32_t prompt_tokens() const { return static_cast<int32_t>(request->prompt.size()); }
  int32_t generated_tokens() const { return static_cast<int32_t>(generated.size()); }
  // Tokens whose entries a full cache would hold by now; the last generated token is not written.
  int32_t logical_tokens() const { return prompt_tokens() + std::max(0, generated_tokens() - 1); }
  bool answered() const { return finish_reason.has_value(); }
  bool done() const { return !failure.ok() || (answered() && (!comparison || comparison->done())); }
  bool prefill_started() const { return lanes != nullptr; }

  // Tokens that cannot follow an answer of `length` tokens: everything that would end it before min_tokens are there.
  std::span<const TokenId> forbidden(int32_t length) const;
  // Whether `token` ends an answer; whether `length` tokens are all that may be.
  bool ends_with(TokenId token) const;
  bool is_full(int32_t length) const { return length >= request->sampling.max_tokens; }
  // Takes the next token of the answer: tells the sink and ends the sequence where it has to. `now` for the timings.
  void accept(const TokenLogprob& token, absl::Time now);
  // The result of a sequence that is done without failure, its lanes still open. Takes the layers' outcomes along.
  RequestResult take_result(uint64_t full_bytes_per_token, uint64_t shared_workspace_bytes);

  // Set at submission.
  const std::shared_ptr<const Request> request;
  const std::shared_ptr<TokenSink> sink;
  const Contract contract;
  JobId job = 0;
  absl::Time submitted;
  std::atomic<bool> cancelled = false;  // by any thread

  // Where it stands.
  SequencePhase phase = SequencePhase::kWaiting;
  std::optional<FinishReason> finish_reason;
  std::optional<TokenId> matched_stop_token;
  absl::Status failure;
  bool told = false;  // its sink knows the end
  std::vector<TokenId> generated;
  std::mt19937_64 rng;
  absl::Time prefill_started_at, first_token_at, last_token_at, ended_at, progress_at;
  absl::Duration compress_time;

  // From the start of the prefill.
  std::unique_ptr<SequenceLanes> lanes;
  std::unique_ptr<Compressor> compressor;
  std::unique_ptr<Comparison> comparison;  // nullptr: nothing is compared
  Tensor residual;    // [prompt tokens, D]: x between the layers; given back when the prompt is done
  int32_t layer = 0;  // next prefill unit; == layers: the output head over the prompt's rows
  int32_t row = 0;
  uint64_t workspace_bytes = 0;
  std::vector<LayerOutcome> outcomes;

  // What the counters have seen of it so far.
  struct Counted {
    bool queue = false, prompt = false;
    int32_t generated = 0;
    uint64_t evicted = 0;  // while generating
    absl::Time token_at;   // the last of them
    absl::Time bytes_at;   // the byte accounts are true until then
  } counted;
  ByteAccount account;  // of its own lanes

 private:
  PolicyComparison rival_result(size_t index, uint64_t full_bytes_per_token);
  std::vector<TokenId> ending_tokens_;  // end tokens (but for ignore_eos) and stop_token_ids
};

}  // namespace pkv
