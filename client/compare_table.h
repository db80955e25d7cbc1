// The reply to a comparison for people: one row per policy, then the answers.
#pragma once

#include <string>
#include <vector>

#include "pyramidkv/v1/generation.pb.h"

namespace pkv::client {

namespace v1 = ::pyramidkv::v1;

// `names`: what to call the baseline and then each policy; missing ones are called as the reply calls them.
std::string compare_table(const v1::CompareResponse& reply, const std::vector<std::string>& names);

// The baseline's answer and every policy's own, each indented and clipped to `most_bytes`, at a character's end.
std::string compare_answers(const v1::CompareResponse& reply, const std::vector<std::string>& names, size_t most_bytes);

}  // namespace pkv::client
