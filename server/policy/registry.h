// The table of policies: one row each, with what people are told about them and how one is made.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/policy/policy.h"

namespace pkv {

// One tunable of a policy, for people.
struct ParameterInfo {
  std::string_view name;  // as in the proto message
  std::string_view range;
  std::string_view default_value;
  std::string_view description;
};

struct PolicyRow {
  PolicyKind kind;
  std::string_view name;  // as in the proto and on command lines
  std::string_view summary;
  std::string_view source;  // paper
  bool takes_budget;
  bool observes_attention;  // has a recall, and so may be asked for one
  std::span<const ParameterInfo> parameters;
  PolicyParams defaults = {};
  std::optional<KvDtype> kv_dtype =
      {};  // of its entries where nobody says; empty: as the server's configuration has it
  // INVALID_ARGUMENT about the offending field (FieldError: "cache_policy.snapkv.kernel_size", "must be odd").
  absl::Status (*validate)(const PolicySpec& spec);
  std::unique_ptr<CachePolicy> (*make)(const PolicySpec& spec);
};

std::span<const PolicyRow> policy_table();
const PolicyRow& policy_row(PolicyKind kind);
const PolicyRow* find_policy(std::string_view name);
std::string policy_names();  // of all, with commas between them

// Validates the spec and makes the policy. Errors as PolicyRow::validate.
absl::StatusOr<std::unique_ptr<CachePolicy>> make_policy(const PolicySpec& spec);

// make_policy(), or what stands in its place.
using PolicyMaker = std::function<absl::StatusOr<std::unique_ptr<CachePolicy>>(const PolicySpec& spec)>;

}  // namespace pkv
