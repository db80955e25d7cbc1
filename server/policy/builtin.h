// What each policy's file gives to its row in registry.cpp. Included by those files only.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "server/policy/policy.h"

namespace pkv {

// full.cpp
absl::Status validate_full(const PolicySpec& spec);
std::unique_ptr<CachePolicy> make_full(const PolicySpec& spec);

// snapkv.cpp
absl::Status validate_snapkv(const PolicySpec& spec);
std::unique_ptr<CachePolicy> make_snapkv(const PolicySpec& spec);

// pyramidkv.cpp
absl::Status validate_pyramidkv(const PolicySpec& spec);
std::unique_ptr<CachePolicy> make_pyramidkv(const PolicySpec& spec);

}  // namespace pkv
