// Budgets and pins between the proto contract and PolicySpec, both ways.
#pragma once

#include "absl/status/status.h"
#include "pyramidkv/v1/cache.pb.h"
#include "server/policy/policy_spec.h"

namespace pkv {

inline constexpr int kMaxPins = 256;

// What `wished` sets goes before what `spec` has; an amount replaces the whole budget. BAD_CACHE_POLICY naming the
// field for what a Budget cannot hold; the policy's own check judges the rest.
absl::Status read_budget(const pyramidkv::v1::CacheBudget& wished, PolicySpec& spec);
void write_budget(const Budget& budget, pyramidkv::v1::CacheBudget& out);

// Likewise. Pins are replaced where `wished` has any.
absl::Status read_pins(const pyramidkv::v1::CachePolicy& wished, PolicySpec& spec);
void write_pins(const PolicySpec& spec, pyramidkv::v1::CachePolicy& out);

}  // namespace pkv
