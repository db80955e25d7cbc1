// The words for what the engine refuses before a request is submitted: policies, lengths, and contracts that can never
// be kept.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "server/engine/contract.h"

namespace pkv {

// What Engine::estimate() or Engine::prepare() refused of `query`: BAD_CACHE_POLICY, CONTEXT_TOO_LONG, BAD_INPUT for
// more policies than may be compared, or CACHE_NEVER_FITS with the figures.
absl::Status contract_error(const absl::Status& status, const Contract::Query& query);
absl::Status refusal_error(const Refusal& refusal, const Contract::Query& query);

// CONTEXT_TOO_LONG about a field of the caller's.
absl::Status context_too_long(const std::string& field, int64_t max, int64_t got, const std::string& description);

}  // namespace pkv
