// What comes back of a request: its tokens as they are made, and at the end what became of it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/cache/kv_cache.h"
#include "server/engine/request.h"
#include "server/policy/layer_outcome.h"

namespace pkv {

struct TokenLogprob {
  TokenId id = 0;
  float logprob = 0;  // natural log, of the model's distribution before temperature and filters
  std::vector<std::pair<TokenId, float>> top;
};

enum class FinishReason : uint8_t { kStop, kLength };

// How a prompt was read by sparse attention.
struct PrefillReport {
  // Of the pairs of a row and an entry before it, those that attention was computed for; mean over heads and layers.
  double attended_share = 1;
  // Of the attention of measured rows, what fell on entries that were left out: over rows, query heads and layers.
  double lost_mean = 0;
  double lost_max = 0;
  int32_t measured_rows = 0;  // of all layers together
};

// What was kept, what it cost and what it saved. Arithmetic: logical tokens are those written to the cache (the last
// generated one is not); full = logical x bytes per token of f16 entries; saved = full - allocated - auxiliary.
struct CacheReport {
  // Integrals over time, from the start of the prompt to the end of the answer: of the bytes held, and of those that a
  // full cache of f16 entries would have held.
  struct ByteSeconds {
    double held = 0;
    double full = 0;
  };

  int32_t budget_tokens = 0;
  int32_t logical_tokens = 0;
  uint64_t full_bytes = 0;
  CacheBytes bytes;  // at the end, before the pages went back; with the peak
  ByteSeconds byte_seconds;
  int64_t saved_bytes = 0;
  uint64_t evicted_entries = 0;
  uint32_t compressions = 0;  // layers that were cut
  bool compressed = false;
  std::string not_compressed_reason;
  // Largest, beside the cache: the request's own residual stream and observed queries, and the engine's tensors of one
  // step, of the scores and of the logits, which it shared with others.
  uint64_t workspace_bytes = 0;
  std::vector<LayerOutcome> layers;
  std::optional<PrefillReport> prefill;  // of a sparse one
};

// One policy of a comparison. It is fed the baseline's answer, token by token; KL(baseline || policy) in nats at every
// place of it. The first place follows from the full prompt and is 0 by construction.
struct PolicyComparison {
  CacheReport cache;  // of its own answer
  std::vector<double> kl;
  double kl_mean = 0;             // without the first place and the continuation; 0 where there is no other
  double top1_agreement = 1;      // likewise: share of places with the same best token
  int32_t first_divergence = -1;  // first place where its own answer differs from the baseline's; -1: nowhere
  std::vector<TokenId> tokens;    // its own answer
};

struct RequestResult {
  // queue: from submission to the start of the prefill. prefill: from there to the first token, what ran in between for
  // others included; compress is a part of it. decode: from the first token to the end. total = queue + prefill +
  // decode.
  struct Timings {
    absl::Duration queue, prefill, compress, decode, time_to_first_token, total;
  };

  FinishReason finish_reason = FinishReason::kLength;
  std::optional<TokenId> matched_stop_token;
  int32_t prompt_tokens = 0;
  int32_t completion_tokens = 0;
  Timings timings;
  CacheReport cache;
  std::vector<PolicyComparison> comparisons;  // one per policy of Request::compare_with
};

// Where a request's events go. Called on the engine thread, must never block; after on_end or on_error nothing follows.
// std::bad_alloc: there is no memory for what is told, and the request ends with RESOURCE_EXHAUSTED; on_error is called
// until it does not throw that.
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  virtual void on_start() = 0;                        // admitted; memory is reserved
  virtual void on_progress(double prefill_done) = 0;  // 0 to 1
  // The prompt's log-probabilities in order, in tiles; the first token's is 0. Only with Request::prompt_logprobs.
  virtual void on_prompt_logprobs(std::span<const TokenLogprob> tokens) = 0;
  // One generated token, end tokens included. Returning false ends the request with kStop (a stop string was found).
  virtual bool on_token(const TokenLogprob& token) = 0;
  virtual void on_end(RequestResult result) = 0;
  virtual void on_error(const absl::Status& status) = 0;
};

}  // namespace pkv
