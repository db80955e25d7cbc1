#include "server/api/policy_catalog.h"

#include <google/protobuf/descriptor.h>

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
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
  for (const PolicyPreset& preset : config.presets) {
    PKV_ASSIGN_OR_RETURN(PolicySpec spec, catalog.preset_spec(preset));
    catalog.presets_.emplace_back(preset.name, spec);
  }
  if (const PolicyRow* row = find_policy(config.default_name); row != nullptr) {
    catalog.default_spec_ = catalog.defaults_of(row->kind);
  } else if (const PolicySpec* preset = catalog.find_preset(config.default_name); preset != nullptr) {
    catalog.default_spec_ = *preset;
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("policies.default: \"", config.default_name, "\" is no policy and no preset"));
  }
  return catalog;
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
  const auto* field = pb::CachePolicy::descriptor()->FindFieldByNumber(wished.policy_case());
  const PolicyRow* row = find_policy(field->name());
  if (row == nullptr) return not_built(absl::StrCat("cache_policy.", field->name()), "this policy is not built yet");
  PolicySpec spec = defaults_of(row->kind);
  PKV_RETURN_IF_ERROR(read_parameters(wished, spec.params));
  return spec;
}

absl::StatusOr<PolicySpec> PolicyCatalog::resolve(const pb::CachePolicy& wished) const {
  PKV_ASSIGN_OR_RETURN(PolicySpec spec, base_spec(wished));
  PKV_RETURN_IF_ERROR(read_kv_dtype(wished.kv_dtype(), spec.kv_dtype));
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
  return message;
}

}  // namespace pkv
