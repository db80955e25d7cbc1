// A preset of the configuration as the message a caller would send: its keys are the names of the contract's fields.
#pragma once

#include "absl/status/statusor.h"
#include "pyramidkv/v1/cache.pb.h"
#include "server/config/config.h"

namespace pkv {

// Keys: policy, the policy's own parameters, those of CacheBudget, kv_dtype, prefill, prefill_tokens. Enumerators by
// the last part of their name in lower case, bytes with or without a unit. INVALID_ARGUMENT beginning with the place
// and the full key for a key that is none of these, a value that is none of its type, or a budget with two amounts.
absl::StatusOr<pyramidkv::v1::CachePolicy> preset_message(const PolicyPreset& preset);

// "file:line: policies.presets.name.key: description", at the place of the key; of the preset where it has no such key.
absl::Status preset_error(const PolicyPreset& preset, const std::string& key, const std::string& description);

}  // namespace pkv
