// snapkv: every layer and KV head keeps the B - W entries with the best window scores and the newest W (SnapKV,
// arXiv 2404.14469).
#include "server/policy/builtin.h"
#include "server/policy/window_score.h"

namespace pkv {

absl::Status validate_snapkv(const PolicySpec& spec) { return validate_window_policy("snapkv", spec); }

std::unique_ptr<CachePolicy> make_snapkv(const PolicySpec& spec) { return std::make_unique<WindowScorePolicy>(spec); }

}  // namespace pkv
