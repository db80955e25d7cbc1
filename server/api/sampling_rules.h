// The rules of sampling.* but max_tokens. Errors name the field (errors.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "pyramidkv/v1/generation.pb.h"
#include "server/engine/request.h"

namespace pkv {

inline constexpr float kDefaultTemperature = 1.0F;
inline constexpr float kMaxLogitBias = 100.0F;
inline constexpr int kMaxStops = 16;
inline constexpr int kMaxStopTokens = 256;
inline constexpr size_t kMaxStopBytes = 1024;

// Ids against a vocabulary of `vocab_size`.
absl::Status read_sampling(const pyramidkv::v1::SamplingParams& message, int32_t vocab_size, SamplingParams& out);

// The stop strings of sampling.stop.
absl::StatusOr<std::vector<std::string>> read_stops(const pyramidkv::v1::SamplingParams& message);

}  // namespace pkv
