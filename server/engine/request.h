// A caller's wishes, validated and immutable. Token ids only: text stays at the edges.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "server/policy/policy_spec.h"

namespace pkv {

using TokenId = int32_t;

constexpr int32_t kMaxTopLogprobs = 20;

struct SamplingParams {
  float temperature = 0;                              // >= 0; 0: greedy, the exact argmax, lowest id wins ties
  float top_p = 1;                                    // (0, 1]
  int32_t top_k = 0;                                  // 0: all
  float min_p = 0;                                    // [0, 1)
  float repetition_penalty = 1;                       // > 0; over prompt and answer
  float frequency_penalty = 0;                        // [-2, 2]; over the answer
  float presence_penalty = 0;                         // [-2, 2]; over the answer
  std::vector<std::pair<TokenId, float>> logit_bias;  // each token once
  uint64_t seed = 0;
  int32_t max_tokens = 256;  // 0: only score the prompt
  int32_t min_tokens = 0;    // end tokens are impossible before
  std::vector<TokenId> stop_token_ids;
  bool ignore_eos = false;
};

struct Request {
  std::string id;
  std::vector<TokenId> prompt;  // at least one
  SamplingParams sampling;
  std::vector<TokenId> end_tokens;  // the model's; ignored with ignore_eos
  PolicySpec policy;
  // A comparison: what these policies would have made of the same prompt and answer. Sampling must be greedy.
  std::vector<PolicySpec> compare_with;
  // Of a comparison: what every answer begins with, whatever would be chosen. Counts in max_tokens.
  std::vector<TokenId> continuation;
  bool record_positions = false;  // kept positions in the report
  bool logprobs = false;          // of generated tokens
  int32_t top_logprobs = 0;       // [0, kMaxTopLogprobs]
  bool prompt_logprobs = false;   // of the prompt's own tokens
  std::optional<absl::Time> deadline;
};

// The tokens that end an answer: the caller's, and the model's unless they are ignored. Each token of an answer is
// looked for among them.
std::unordered_set<TokenId> ending_tokens(const Request& request);

}  // namespace pkv
