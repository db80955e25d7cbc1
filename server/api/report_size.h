// How large a reply may become by what its report says: known before any work is done.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "server/api/conversion.h"
#include "server/engine/contract.h"

namespace pkv {

// Bytes of the positions in the reports of a request with this contract, its comparisons' and their kl included, at
// most. `kv_heads`: of the model. `max_tokens`: of the answer.
uint64_t most_report_bytes(const Contract& contract, int32_t kv_heads, int32_t max_tokens);

// REPLY_TOO_LARGE about `cache_report`, with both figures, where the positions that it asks for may take more than
// `max_bytes`.
absl::Status check_report_size(ReportDetail detail, const Contract& contract, int32_t kv_heads, int32_t max_tokens,
                               uint64_t max_bytes);

}  // namespace pkv
