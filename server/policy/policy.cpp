// What a cache policy does unless it says otherwise.
#include "server/policy/policy.h"

#include "kernels/check.h"

namespace pkv {

std::vector<int32_t> CachePolicy::layer_budgets(int32_t budget, int32_t /*tokens*/, int32_t layers) const {
  return std::vector<int32_t>(static_cast<size_t>(layers), budget);
}

float CachePolicy::entry_score(const NewEntry&) const {
  PKV_CHECK(false, "a policy that does not score entries when they come");
}

}  // namespace pkv
