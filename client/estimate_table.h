// What a request would cost under several policies: a row each, and which of them keeps most of what fits.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "pyramidkv/v1/generation.pb.h"

namespace pkv::client {

namespace v1 = ::pyramidkv::v1;

struct EstimateRow {
  std::string name;  // what the caller wrote: "pyramidkv:128"
  v1::CachePolicy policy;
  v1::EstimateCacheResponse estimate;
  // Whether estimate.smallest_budget_bytes would fit where the policy as it is does not.
  bool smallest_bytes_fit = false;
};

std::string estimate_table(const std::vector<EstimateRow>& rows);

// The row that keeps most entries among those that fit now or, where none does, among those that would ever; of equal
// ones that with the smallest peak. Nothing where none fits.
std::optional<size_t> best_fitting(const std::vector<EstimateRow>& rows);

// What to say of the best row, in front of its command; where none fits, how one would.
std::string estimate_verdict(const std::vector<EstimateRow>& rows, std::optional<size_t> best);

}  // namespace pkv::client
