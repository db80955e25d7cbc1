// Enumerations and whole messages of cache policies between the proto contract, the configuration's words and the
// server's own types.
#pragma once

#include <optional>

#include "absl/status/statusor.h"
#include "pyramidkv/v1/cache.pb.h"
#include "server/config/config.h"
#include "server/policy/policy.h"

namespace pkv {

// Nothing for a value that is unspecified, unknown or meaningless here.
std::optional<PoolKind> from_proto(pyramidkv::v1::Pooling value);
std::optional<GroupReduce> from_proto(pyramidkv::v1::Aggregation value);
std::optional<PyramidAllocation> from_proto(pyramidkv::v1::PyramidAllocation value);
std::optional<KvDtype> from_proto(pyramidkv::v1::KvDtype value);

// A preset's words as the message a caller would send. INVALID_ARGUMENT beginning with the preset's key for a word that
// is no value, or a parameter that its policy does not have.
absl::StatusOr<pyramidkv::v1::CachePolicy> preset_message(const PolicyPreset& preset);

}  // namespace pkv
