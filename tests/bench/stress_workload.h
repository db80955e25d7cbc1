// The requests of pkv-stress: number i of a seed is the same on every machine and in every order.
#pragma once

#include <cstdint>
#include <memory>

#include "server/engine/engine.h"
#include "server/engine/request.h"

namespace pkv {

// How a client ends a request before it is done.
enum class Interruption : uint8_t {
  kNone,
  kCancelAtOnce,   // right after it was submitted
  kCancelAtStart,  // when it is admitted
  kCancelAtToken,
  kStopAtToken,  // as where a stop string was found
};

struct StressRequest {
  std::shared_ptr<Request> request;
  Interruption interruption = Interruption::kNone;
  int32_t at_token = 0;
  bool asks_too_little = false;  // a budget in bytes below the smallest that works
};

struct WorkloadLimits {
  int32_t max_prompt = 300;
  int32_t max_answer = 60;
  int32_t first_token = 0;  // of the prompt's tokens
  int32_t last_token = 0;
};

// `engine` is asked for the smallest budgets in bytes, which depend on nothing but the request and the model.
StressRequest make_stress_request(uint64_t seed, int64_t index, const WorkloadLimits& limits, const Engine& engine);

}  // namespace pkv
