#include "server/api/policy_catalog.h"

#include <google/protobuf/descriptor.h>

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "kernels/status_macros.h"
#include "server/api/errors.h"
#include "server/api/policy_budget.h"
#include "server/api/policy_parameters.h"
#include "server/api/preset_message.h"
#include "server/policy/registry.h"
#include "server/status/field_error.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

constexpr char kSwitchedOff[] = "is switched off on this server (policies.disabled)";

// The field of the policy that is asked for, which has its name.
const std::string& policy_field(const pb::CachePolicy& wished) {
  return pb::CachePolicy::descriptor()->FindFieldByNumber(wished.policy_case())->name();
}

}  // namespace

absl::StatusOr<PolicyCatalog> PolicyCatalog::create(const PoliciesConfig& config, KvDtype default_dtype,
                                                    std::shared_ptr<const LaneTable> lane_table) {
  PolicyCatalog catalog;
  catalog.lane_table_ = std::move(lane_table);
  catalog.default_dtype_ = default_dtype;
  Budget& budget = catalog.default_budget_;
  budget.kind = BudgetKind::kKeepRatio;
  if (!read_millionths(config.default_keep_ratio, 1, kMillion, "", budget.keep_ratio_millionths).ok()) {
    return absl::InvalidArgumentError("policies.default_keep_ratio: must be at least 0.000001 and at most 1");
  }
  PKV_RETURN_IF_ERROR(catalog.read_disabled(config));
  for (const PolicyPreset& preset : config.presets) {
    PKV_ASSIGN_OR_RETURN(PolicySpec spec, catalog.preset_spec(preset));
    catalog.presets_.emplace_back(preset.name, spec);
  }
  if (const PolicyRow* row = find_policy(config.default_name); row != nullptr) {
    catalog.default_spec_ = catalog.defaults_of(row->kind);
  } else if (const PolicySpec* preset = catalog.find_preset(config.default_name); preset != nullptr) {
    catalog.default_spec_ = *preset;
  } else {
    return absl::InvalidArgumentError(absl::StrCat("policies.default: \"", config.default_name,
                                                   "\" is no policy and no preset; the policies are ", policy_names()));
  }
  const PolicyRow& standard = policy_row(catalog.default_spec_.kind);
  if (!catalog.enabled(standard.kind)) {
    return absl::InvalidArgumentError(
        absl::StrCat("policies.default: ", std::string(standard.name), " ", kSwitchedOff));
  }
  return catalog;
}

absl::Status PolicyCatalog::read_disabled(const PoliciesConfig& config) {
  for (const absl::string_view name : absl::StrSplit(config.disabled, absl::ByAnyChar(", "), absl::SkipEmpty())) {
    const PolicyRow* row = find_policy({name.data(), name.size()});
    if (row == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("policies.disabled: \"", name, "\" is no policy; there are ", policy_names()));
    }
    disabled_.insert(row->kind);
  }
  return absl::OkStatus();
}

PolicySpec PolicyCatalog::defaults_of(PolicyKind kind) const {
  PolicySpec spec;
  spec.kind = kind;
  spec.params = policy_row(kind).defaults;
  spec.kv_dtype = policy_row(kind).kv_dtype.value_or(default_dtype_);
  spec.lane_table = lane_table_;
  if (lane_table_ == nullptr) spec.params.funnel_allocation = FunnelAllocation::kGlobal;
  if (policy_row(kind).takes_budget) spec.budget = default_budget_;
  return spec;
}

const PolicySpec* PolicyCatalog::find_preset(const std::string& name) const {
  for (const auto& [preset, spec] : presets_) {
    if (preset == name) return &spec;
  }
  return nullptr;
}

absl::StatusOr<PolicySpec> PolicyCatalog::preset_spec(const PolicyPreset& preset) const {
  if (find_policy(preset.name) != nullptr) return preset_error(preset, "", "is the name of a policy");
  PKV_ASSIGN_OR_RETURN(pb::CachePolicy message, preset_message(preset));
  if (const PolicyRow* row = find_policy(policy_field(message)); row != nullptr && !enabled(row->kind)) {
    return preset_error(preset, "policy", absl::StrCat(std::string(row->name), " ", kSwitchedOff));
  }
  absl::StatusOr<PolicySpec> spec = resolve(message);
  if (spec.ok()) return spec;
  // The preset's key is the last part of the field's path.
  const std::optional<FieldError> named = field_error_of(spec.status());
  if (!named) return spec.status();
  return preset_error(preset, named->field.substr(named->field.rfind('.') + 1), named->description);
}

absl::StatusOr<PolicySpec> PolicyCatalog::base_spec(const pb::CachePolicy& wished) const {
  if (wished.policy_case() == pb::CachePolicy::POLICY_NOT_SET) return default_spec_;
  if (wished.policy_case() == pb::CachePolicy::kPreset) {
    if (const PolicySpec* preset = find_preset(wished.preset()); preset != nullptr) return *preset;
    return not_found("cache_policy.preset",
                     absl::StrCat(shown(wished.preset()), " is not in this server's configuration"));
  }
  const std::string field = absl::StrCat("cache_policy.", policy_field(wished));
  const PolicyRow* row = find_policy(policy_field(wished));
  if (row == nullptr) return not_built(field, "this policy is not built yet");
  if (!enabled(row->kind)) {
    return make_error({.reason = kPolicyDisabled,
                       .field = field,
                       .description = absl::StrCat(kSwitchedOff, "; ListCachePolicies tells which may be asked for")});
  }
  PolicySpec spec = defaults_of(row->kind);
  PKV_RETURN_IF_ERROR(read_parameters(wished, spec.params));
  return spec;
}

absl::StatusOr<PolicySpec> PolicyCatalog::resolve(const pb::CachePolicy& wished) const {
  PKV_ASSIGN_OR_RETURN(PolicySpec spec, base_spec(wished));
  PKV_RETURN_IF_ERROR(read_kv_dtype(wished.kv_dtype(), spec.kv_dtype));
  PKV_RETURN_IF_ERROR(read_prefill(wished, spec));
  PKV_RETURN_IF_ERROR(read_budget(wished.budget(), spec));
  PKV_RETURN_IF_ERROR(read_pins(wished, spec));
  if (absl::Status status = policy_row(spec.kind).validate(spec); !status.ok()) {
    return with_reason(status, absl::IsUnimplemented(status) ? kNotImplemented : kBadCachePolicy);
  }
  return spec;
}

pb::CachePolicy to_proto(const PolicySpec& spec) {
  pb::CachePolicy message;
  write_parameters(spec, message);
  if (spec.budget.kind != BudgetKind::kNone) write_budget(spec.budget, *message.mutable_budget());
  write_pins(spec, message);
  message.set_kv_dtype(to_proto(spec.kv_dtype));
  write_prefill(spec, message);
  return message;
}

}  // namespace pkv
