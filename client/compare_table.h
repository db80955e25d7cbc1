// The reply to a comparison for people: one row per policy.
#pragma once

#include <string>
#include <vector>

#include "pyramidkv/v1/generation.pb.h"

namespace pkv::client {

namespace v1 = ::pyramidkv::v1;

// What to call the policy of `row`, the baseline's being 0: as in `names` or, beyond them, as the reply calls it.
std::string compared_name(const v1::CacheReport& report, const std::vector<std::string>& names, size_t row);

// `names`: what to call the baseline and then each policy; missing ones are called as the reply calls them.
std::string compare_table(const v1::CompareResponse& reply, const std::vector<std::string>& names);

}  // namespace pkv::client
