// Reads policies.presets: named cache policies. Only their form is checked here; what a policy accepts is the policies'
// business.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "server/config/config.h"
#include "server/config/config_node.h"

namespace pkv {

// The keys of one preset: policy, tokens, keep_ratio, window_tokens, ...
std::span<const std::string_view> preset_keys();

// INVALID_ARGUMENT beginning with the place and the full key.
absl::Status parse_presets(const ConfigNode& node, std::vector<PolicyPreset>& presets);

}  // namespace pkv
