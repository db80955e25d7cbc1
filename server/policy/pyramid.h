// The straight line of entries per layer of PyramidKV (arXiv 2406.02069, section 4), in integers, so that the same
// request gets the same budgets on every machine.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "server/policy/policy_spec.h"

namespace pkv {

// One pyramid: n > B > W >= 1, L >= 1, beta >= 1.
struct Pyramid {
  int64_t tokens = 0;  // n
  int64_t budget = 0;  // B
  int64_t window = 0;  // W
  int64_t layers = 0;  // L
  int64_t beta_millionths = 0;

  int64_t past() const { return budget - window; }  // C
};

// Entries of every layer, window included, that add up to L B. Layer l gets bottom - (bottom - top) l / (L - 1) entries
// beside the window, where top = C / beta and bottom = 2C - top (PyramidKV, eq. 1); a bottom above n - W is cut to it
// and the top raised by as much, so that the sum is L C. Rounded by largest remainder, ties to the lower layer.
std::vector<int32_t> exact_pyramid(const Pyramid& pyramid);

// Refuses a beta below 1. `policy` is the policy's field in the proto message CachePolicy.
absl::Status validate_beta(std::string_view policy, const PolicyParams& params);

}  // namespace pkv
