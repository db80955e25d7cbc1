// The parameters of all policies between the proto contract and PolicyParams, both ways, from one table: a field's name
// says which parameter it is, whatever policy's message it is in.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "pyramidkv/v1/cache.pb.h"
#include "server/policy/policy_spec.h"

namespace pkv {

// Takes over every field of the message that is set in `wished`'s oneof of policies, which is not `preset`.
// BAD_CACHE_POLICY naming the field for a value that is none, or too large for any use.
absl::Status read_parameters(const pyramidkv::v1::CachePolicy& wished, PolicyParams& params);

// The message of `spec.kind` with every parameter it has.
void write_parameters(const PolicySpec& spec, pyramidkv::v1::CachePolicy& out);

// prefill and prefill_tokens.
absl::Status read_prefill(const pyramidkv::v1::CachePolicy& wished, PolicySpec& spec);
void write_prefill(const PolicySpec& spec, pyramidkv::v1::CachePolicy& out);

absl::Status read_kv_dtype(pyramidkv::v1::KvDtype wished, KvDtype& out);
pyramidkv::v1::KvDtype to_proto(KvDtype dtype);

// Millionths of `value`, rounded to the nearest. BAD_CACHE_POLICY naming `field` where they are not from `min` to
// `max`.
absl::Status read_millionths(double value, int64_t min, int64_t max, const std::string& field, int64_t& out);

// A number of tokens. BAD_CACHE_POLICY naming `field` where it is larger than any prompt.
absl::Status read_tokens(uint32_t value, const std::string& field, int32_t& out);

}  // namespace pkv
