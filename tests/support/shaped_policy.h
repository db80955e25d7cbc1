// A policy whose budget is divided at random, for tests of whatever must hold for any division: it scores as the policy
// it stands before.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/policy/registry.h"

namespace pkv::test {

enum class LaneShape : uint8_t {
  kOwn,      // the policy's own division
  kLanes,    // every lane a random share of any budget, none at all for some
  kJumping,  // the same with other shares at every budget
  kTotals,   // every layer a random share, of which a lane may get a random part at most
};

inline constexpr LaneShape kLaneShapes[] = {LaneShape::kOwn, LaneShape::kLanes, LaneShape::kJumping,
                                            LaneShape::kTotals};
std::string name_of(LaneShape shape);

// As make_policy(), for every policy that takes a budget: divided as `shape` says. Lanes of a policy whose positions
// are relative to the cache stay alike.
absl::StatusOr<std::unique_ptr<CachePolicy>> make_shaped_policy(const PolicySpec& spec, LaneShape shape);
// The same for EngineOptions::make_policy.
PolicyMaker shaped_policies(LaneShape shape);

}  // namespace pkv::test
