// The answers of a comparison side by side where they part, and what the comparison comes to in a sentence.
#pragma once

#include <string>
#include <vector>

#include "pyramidkv/v1/generation.pb.h"

namespace pkv::client {

namespace v1 = ::pyramidkv::v1;

// Bytes that both texts begin with, up to the end of a whole character.
size_t common_prefix(const std::string& left, const std::string& right);

// Every policy's answer beside the baseline's, from a little before the place where they part, which is marked with >>;
// a longer beginning that is alike is counted and left out. One below the other where `width` columns are too few for
// two. What is equal to the baseline's answer is only named. `names` as in compare_table.h; at most `most_bytes` of
// each answer behind that place.
std::string compare_sides(const v1::CompareResponse& reply, const std::vector<std::string>& names, size_t width,
                          size_t most_bytes);

// "snapkv:128 gives full's answer with 5.1 % of its memory; pyramidkv:64 departs at token 3 (2.4 %)."
std::string compare_verdict(const v1::CompareResponse& reply, const std::vector<std::string>& names);

}  // namespace pkv::client
