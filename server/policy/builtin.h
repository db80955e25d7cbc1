// What each policy's file gives to its row in registry.cpp. Included by those files only.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "server/policy/policy.h"

namespace pkv {

// full.cpp
absl::Status validate_full(const PolicySpec& spec);
std::unique_ptr<CachePolicy> make_full(const PolicySpec& spec);

// streaming_llm.cpp
absl::Status validate_streaming_llm(const PolicySpec& spec);
std::unique_ptr<CachePolicy> make_streaming_llm(const PolicySpec& spec);

// h2o.cpp
absl::Status validate_h2o(const PolicySpec& spec);
std::unique_ptr<CachePolicy> make_h2o(const PolicySpec& spec);

// snapkv.cpp
absl::Status validate_snapkv(const PolicySpec& spec);
std::unique_ptr<CachePolicy> make_snapkv(const PolicySpec& spec);

// pyramidkv.cpp
absl::Status validate_pyramidkv(const PolicySpec& spec);
std::unique_ptr<CachePolicy> make_pyramidkv(const PolicySpec& spec);

// ada_snapkv.cpp
absl::Status validate_ada_snapkv(const PolicySpec& spec);
std::unique_ptr<CachePolicy> make_ada_snapkv(const PolicySpec& spec);

// ada_pyramidkv.cpp
absl::Status validate_ada_pyramidkv(const PolicySpec& spec);
std::unique_ptr<CachePolicy> make_ada_pyramidkv(const PolicySpec& spec);

// funnel.cpp
absl::Status validate_funnel(const PolicySpec& spec);
std::unique_ptr<CachePolicy> make_funnel(const PolicySpec& spec);

// l2norm.cpp
absl::Status validate_l2norm(const PolicySpec& spec);
std::unique_ptr<CachePolicy> make_l2norm(const PolicySpec& spec);

// tova.cpp
absl::Status validate_tova(const PolicySpec& spec);
std::unique_ptr<CachePolicy> make_tova(const PolicySpec& spec);

// keydiff.cpp
absl::Status validate_keydiff(const PolicySpec& spec);
std::unique_ptr<CachePolicy> make_keydiff(const PolicySpec& spec);

// random.cpp
absl::Status validate_random(const PolicySpec& spec);
std::unique_ptr<CachePolicy> make_random(const PolicySpec& spec);

}  // namespace pkv
