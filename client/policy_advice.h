// When to take which policy: only what docs/policies.md and docs/results/policies.md say and measured.
#pragma once

#include <string>

namespace pkv::client {

// A sentence or two about the policy called `name`; "" for one that is not known here.
std::string policy_advice(const std::string& name);

// Which to take, in general.
std::string policy_advice();

}  // namespace pkv::client
