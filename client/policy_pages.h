// What `pyramidkv policies` prints: the policies and presets of a server in tables, or one of them in detail.
#pragma once

#include <string>

#include "pyramidkv/v1/model.pb.h"

namespace pkv::client {

namespace v1 = ::pyramidkv::v1;

// Everything, in lines of at most `width` columns where that is possible.
std::string policies_page(const v1::ListCachePoliciesResponse& list, size_t width);

// The policy or else the preset called `name`: what it keeps, when to take it, parameters, commands that use it. ""
// where the server has neither.
std::string policy_page(const v1::ListCachePoliciesResponse& list, const std::string& name, size_t width);

}  // namespace pkv::client
