// A comparison taken apart into replies, one a policy, for whoever shows replies side by side.
#pragma once

#include <vector>

#include "pyramidkv/v1/generation.pb.h"

namespace pkv::client {

namespace v1 = ::pyramidkv::v1;

// What Generate would have answered under the baseline and under every policy, in their order, without what a
// comparison does not tell: times and workspace of each, for they run together, and why the policies' own answers
// ended.
std::vector<v1::GenerateResponse> compared_replies(const v1::CompareResponse& comparison);

}  // namespace pkv::client
