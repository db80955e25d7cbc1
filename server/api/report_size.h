// How large a reply may become by what its report says and by its log-probabilities: known before any work is done.
// What is made of texts is known when they are tokenised.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "server/api/conversion.h"
#include "server/api/server_state.h"
#include "server/engine/contract.h"
#include "server/engine/request.h"

namespace pkv {

// Bytes of the positions in the reports of a request with this contract, its comparisons' and their kl included, at
// most. `kv_heads`: of the model. `max_tokens`: of the answer.
uint64_t most_report_bytes(const Contract& contract, int32_t kv_heads, int32_t max_tokens);

// REPLY_TOO_LARGE about `cache_report`, with both figures, where the positions that it asks for may take more than
// `max_bytes`.
absl::Status check_report_size(ReportDetail detail, const Contract& contract, int32_t kv_heads, int32_t max_tokens,
                               uint64_t max_bytes);

// Bytes of an answer in one piece to a request for log-probabilities, report excepted, at most: every token may be the
// longest, while the alternatives of one place are different ones. `longest_tokens` (ServedModel, not empty) and
// `vocab_size`: of the model's vocabulary.
uint64_t most_logprob_bytes(const Request& request, std::span<const size_t> longest_tokens, int32_t vocab_size);

// REPLY_TOO_LARGE about `output.logprobs` or, where it asks for some, `output.top_logprobs`, with both figures, where
// such an answer may take more than `max_bytes`.
absl::Status check_logprob_size(const Request& request, const ServedModel& served, uint64_t max_bytes);

// REPLY_TOO_LARGE about `field`, with both figures, where a reply of `bytes` has more than `max_bytes`.
absl::Status check_reply_size(uint64_t bytes, uint64_t max_bytes, const std::string& field);

}  // namespace pkv
