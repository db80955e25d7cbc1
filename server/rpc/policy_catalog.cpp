#include "server/rpc/policy_catalog.h"

#include <cmath>
#include <optional>

#include "absl/strings/str_cat.h"
#include "server/rpc/errors.h"
#include "server/rpc/policy_enums.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

// Larger than any prompt, and small enough that sums of such numbers do not overflow.
constexpr uint32_t kMaxTokens = 1u << 30;
constexpr double kMaxReal = 1e6;

// Millionths of `value`, rounded to the nearest; nothing where it is no number of a sensible size.
std::optional<int64_t> millionths(double value) {
  if (!std::isfinite(value) || std::abs(value) > kMaxReal) return std::nullopt;
  return std::llround(value * static_cast<double>(kMillion));
}

std::optional<Budget> ratio_budget(double ratio) {
  const std::optional<int64_t> value = millionths(ratio);
  if (!value || *value < 1 || *value > kMillion) return std::nullopt;
  return Budget{.kind = BudgetKind::kKeepRatio, .keep_ratio_millionths = *value};
}

absl::Status read_count(uint32_t value, const std::string& field, int32_t& out) {
  if (value > kMaxTokens) return bad_cache_policy(field, absl::StrCat("must be at most ", kMaxTokens, ", not ", value));
  out = static_cast<int32_t>(value);
  return absl::OkStatus();
}

template <typename Enum, typename Value>
absl::Status read_enum(Enum wished, const std::string& field, Value& out) {
  if (static_cast<int>(wished) == 0) return absl::OkStatus();  // unspecified: the default
  const std::optional<Value> value = from_proto(wished);
  if (!value) return bad_cache_policy(field, "has no such value for this field");
  out = *value;
  return absl::OkStatus();
}

// The parameters that SnapKV and PyramidKV share.
template <typename Message>
absl::Status read_window(const Message& message, const std::string& path, PolicyParams& params) {
  absl::Status status;
  if (message.has_window_tokens())
    status.Update(read_count(message.window_tokens(), path + "window_tokens", params.window_tokens));
  if (message.has_kernel_size())
    status.Update(read_count(message.kernel_size(), path + "kernel_size", params.kernel_size));
  if (message.has_pooling()) status.Update(read_enum(message.pooling(), path + "pooling", params.pooling));
  if (message.has_group_aggregation()) {
    status.Update(read_enum(message.group_aggregation(), path + "group_aggregation", params.group_aggregation));
  }
  return status;
}

absl::Status read_pyramid(const pb::PyramidKvPolicy& message, PolicyParams& params) {
  const std::string path = "cache_policy.pyramidkv.";
  if (absl::Status status = read_window(message, path, params); !status.ok()) return status;
  if (message.has_beta()) {
    const std::optional<int64_t> beta = millionths(message.beta());
    if (!beta) return bad_cache_policy(path + "beta", absl::StrCat("must be a number from 1 to ", kMaxReal));
    params.beta_millionths = *beta;
  }
  return message.has_allocation() ? read_enum(message.allocation(), path + "allocation", params.allocation)
                                  : absl::OkStatus();
}

// The name of a policy that is part of the contract, but not built; null otherwise.
const char* unbuilt_policy(pb::CachePolicy::PolicyCase policy) {
  switch (policy) {
    case pb::CachePolicy::kStreamingLlm:
      return "streaming_llm";
    case pb::CachePolicy::kH2O:
      return "h2o";
    case pb::CachePolicy::kL2Norm:
      return "l2norm";
    case pb::CachePolicy::kTova:
      return "tova";
    case pb::CachePolicy::kKeydiff:
      return "keydiff";
    case pb::CachePolicy::kRandom:
      return "random";
    default:
      return nullptr;
  }
}

// Fields of the budget that later versions will have.
absl::Status refuse_unbuilt_budget(const pb::CacheBudget& budget) {
  const std::string path = "cache_policy.budget.";
  if (budget.amount_case() == pb::CacheBudget::kBytes)
    return not_built(path + "bytes", "byte budgets are not built yet");
  if (budget.amount_case() == pb::CacheBudget::kMinRecall) return not_built(path + "min_recall");
  if (budget.has_max_bytes()) return not_built(path + "max_bytes");
  if (budget.has_interval_tokens()) return not_built(path + "interval_tokens");
  if (budget.has_allow_shortfall()) return not_built(path + "allow_shortfall");
  if (budget.scope() == pb::BUDGET_SCOPE_TOTAL) return not_built(path + "scope", "TOTAL is not built yet, only PROMPT");
  if (budget.scope() != pb::BUDGET_SCOPE_UNSPECIFIED && budget.scope() != pb::BUDGET_SCOPE_PROMPT) {
    return bad_cache_policy(path + "scope", absl::StrCat("has no value ", static_cast<int>(budget.scope())));
  }
  return absl::OkStatus();
}

absl::Status refuse_unbuilt(const pb::CachePolicy& wished) {
  if (const char* name = unbuilt_policy(wished.policy_case()); name != nullptr) {
    return not_built(absl::StrCat("cache_policy.", name), "this policy is not built yet");
  }
  if (wished.pins_size() > 0) return not_built("cache_policy.pins");
  if (wished.pin_system_message()) return not_built("cache_policy.pin_system_message");
  return refuse_unbuilt_budget(wished.budget());
}

absl::Status read_kv_dtype(pb::KvDtype wished, KvDtype& out) {
  if (wished == pb::KV_DTYPE_BF16 || wished == pb::KV_DTYPE_K8V4) {
    return not_built("cache_policy.kv_dtype", absl::StrCat(pb::KvDtype_Name(wished), " is not built yet"));
  }
  return read_enum(wished, "cache_policy.kv_dtype", out);
}

absl::Status read_budget(const pb::CacheBudget& wished, PolicySpec& spec) {
  if (wished.amount_case() == pb::CacheBudget::AMOUNT_NOT_SET) return absl::OkStatus();
  if (!policy_row(spec.kind).takes_budget) {
    return bad_cache_policy("cache_policy.budget", absl::StrCat("the policy ", std::string(policy_row(spec.kind).name),
                                                                " takes no budget; name a policy that does"));
  }
  if (wished.amount_case() == pb::CacheBudget::kTokens) {
    spec.budget = {.kind = BudgetKind::kTokens, .tokens = wished.tokens()};
    return absl::OkStatus();
  }
  const std::optional<Budget> budget = ratio_budget(wished.keep_ratio());
  if (!budget) return bad_cache_policy("cache_policy.budget.keep_ratio", "must be above 0 and at most 1");
  spec.budget = *budget;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PolicyCatalog> PolicyCatalog::create(const PoliciesConfig& config, KvDtype default_dtype) {
  PolicyCatalog catalog;
  catalog.default_dtype_ = default_dtype;
  const std::optional<Budget> ratio = ratio_budget(config.default_keep_ratio);
  if (!ratio) return absl::InvalidArgumentError("policies.default_keep_ratio: must be at least 0.000001 and at most 1");
  catalog.default_budget_ = *ratio;
  for (const PolicyPreset& preset : config.presets) {
    absl::StatusOr<PolicySpec> spec = catalog.preset_spec(preset);
    if (!spec.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(preset.where, ": policies.presets.", preset.name, ".", std::string(spec.status().message())));
    }
    catalog.presets_.emplace_back(preset.name, *spec);
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
  spec.kv_dtype = default_dtype_;
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
  if (find_policy(preset.name) != nullptr) return absl::InvalidArgumentError("is the name of a policy");
  if (find_policy(preset.policy) == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("policy: \"", preset.policy, "\" is no policy of this build"));
  }
  absl::StatusOr<pb::CachePolicy> message = preset_message(preset);
  if (!message.ok()) return message.status();
  absl::StatusOr<PolicySpec> spec = resolve(*message);
  if (spec.ok()) return spec;
  std::string problem(spec.status().message());
  const std::string prefix = "cache_policy.";
  return absl::InvalidArgumentError(problem.starts_with(prefix) ? problem.substr(prefix.size()) : problem);
}

absl::StatusOr<PolicySpec> PolicyCatalog::base_spec(const pb::CachePolicy& wished) const {
  PolicySpec spec;
  absl::Status status;
  switch (wished.policy_case()) {
    case pb::CachePolicy::kPreset: {
      const PolicySpec* preset = find_preset(wished.preset());
      if (preset == nullptr) {
        return not_found("cache_policy.preset",
                         absl::StrCat("\"", wished.preset(), "\" is not in this server's configuration"));
      }
      return *preset;
    }
    case pb::CachePolicy::kFull:
      return defaults_of(PolicyKind::kFull);
    case pb::CachePolicy::kSnapkv:
      spec = defaults_of(PolicyKind::kSnapKv);
      status = read_window(wished.snapkv(), "cache_policy.snapkv.", spec.params);
      break;
    case pb::CachePolicy::kPyramidkv:
      spec = defaults_of(PolicyKind::kPyramidKv);
      status = read_pyramid(wished.pyramidkv(), spec.params);
      break;
    default:
      return default_spec_;
  }
  if (!status.ok()) return status;
  return spec;
}

absl::StatusOr<PolicySpec> PolicyCatalog::resolve(const pb::CachePolicy& wished) const {
  if (absl::Status status = refuse_unbuilt(wished); !status.ok()) return status;
  absl::StatusOr<PolicySpec> spec = base_spec(wished);
  if (!spec.ok()) return spec.status();
  if (absl::Status status = read_kv_dtype(wished.kv_dtype(), spec->kv_dtype); !status.ok()) return status;
  if (absl::Status status = read_budget(wished.budget(), *spec); !status.ok()) return status;
  if (absl::Status status = policy_row(spec->kind).validate(*spec); !status.ok())
    return with_reason(status, kBadCachePolicy);
  return spec;
}

}  // namespace pkv
