// From what a caller writes about its cache to the PolicySpec the engine gets, and back: the server's defaults and
// presets are filled in here, once, and what is not built yet is refused by name.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "pyramidkv/v1/cache.pb.h"
#include "pyramidkv/v1/model.pb.h"
#include "server/config/config.h"
#include "server/policy/policy_spec.h"

namespace pkv {

class PolicyCatalog {
 public:
  // `lane_table`: of the served model, where there is one.
  // INVALID_ARGUMENT naming the key (and the preset's place) for a default or preset that no policy accepts or whose
  // policy is switched off, and for a name in `policies.disabled` that is no policy.
  static absl::StatusOr<PolicyCatalog> create(const PoliciesConfig& config, KvDtype default_dtype,
                                              std::shared_ptr<const LaneTable> lane_table = nullptr);

  // Every default filled in. Errors as in errors.h, fields below "cache_policy": UNIMPLEMENTED for what is not built,
  // POLICY_DISABLED for what this server's configuration switches off, NOT_FOUND for an unknown preset,
  // BAD_CACHE_POLICY for what the policy does not accept. Budgets and pins that only a prompt can judge are judged at
  // admission; the span of a system message is not among the pins yet.
  absl::StatusOr<PolicySpec> resolve(const pyramidkv::v1::CachePolicy& wished) const;

  // Whether requests may have the policy.
  bool enabled(PolicyKind kind) const { return !disabled_.contains(kind); }
  const PolicySpec& default_spec() const { return default_spec_; }
  // The spec of a policy with all its defaults.
  PolicySpec defaults_of(PolicyKind kind) const;
  const std::vector<std::pair<std::string, PolicySpec>>& presets() const { return presets_; }
  const std::shared_ptr<const LaneTable>& lane_table() const { return lane_table_; }

 private:
  PolicyCatalog() = default;
  absl::StatusOr<PolicySpec> base_spec(const pyramidkv::v1::CachePolicy& wished) const;
  absl::StatusOr<PolicySpec> preset_spec(const PolicyPreset& preset) const;
  absl::Status read_disabled(const PoliciesConfig& config);
  const PolicySpec* find_preset(const std::string& name) const;

  std::shared_ptr<const LaneTable> lane_table_;
  KvDtype default_dtype_ = KvDtype::kF16;
  Budget default_budget_;
  std::set<PolicyKind> disabled_;
  PolicySpec default_spec_;
  std::vector<std::pair<std::string, PolicySpec>> presets_;
};

// The spec as the proto message, everything resolved: parameters, budget with its scope, pins, entry format.
pyramidkv::v1::CachePolicy to_proto(const PolicySpec& spec);

}  // namespace pkv
