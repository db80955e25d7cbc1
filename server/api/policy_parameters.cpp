#include "server/api/policy_parameters.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "server/api/errors.h"
#include "server/config/config_values.h"
#include "server/engine/sparse_prefill.h"
#include "server/policy/registry.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// Larger than any prompt, and small enough that sums of such numbers do not overflow.
constexpr uint32_t kMaxTokens = 1u << 30;
constexpr int64_t kMaxReal = 1'000'000;

// Pairs of a proto value and ours.
template <typename Ours, size_t kSize>
using EnumTable = std::array<std::pair<int, Ours>, kSize>;

constexpr EnumTable<PoolKind, 3> kPoolings = {
    {{pb::POOLING_MAX, PoolKind::kMax}, {pb::POOLING_AVG, PoolKind::kAvg}, {pb::POOLING_NONE, PoolKind::kNone}}};
constexpr EnumTable<GroupReduce, 3> kAggregations = {{{pb::AGGREGATION_SUM, GroupReduce::kSum},
                                                      {pb::AGGREGATION_MEAN, GroupReduce::kMean},
                                                      {pb::AGGREGATION_MAX, GroupReduce::kMax}}};
constexpr EnumTable<PyramidAllocation, 2> kAllocations = {
    {{pb::PYRAMID_ALLOCATION_EXACT, PyramidAllocation::kExact},
     {pb::PYRAMID_ALLOCATION_FACTORY, PyramidAllocation::kFactory}}};
constexpr EnumTable<FunnelAllocation, 2> kFunnelAllocations = {
    {{pb::FUNNEL_ALLOCATION_TABLE, FunnelAllocation::kTable},
     {pb::FUNNEL_ALLOCATION_GLOBAL, FunnelAllocation::kGlobal}}};
constexpr EnumTable<H2oScore, 2> kH2oScores = {
    {{pb::AGGREGATION_SUM, H2oScore::kSum}, {pb::AGGREGATION_MEAN, H2oScore::kMean}}};
constexpr EnumTable<PositionMode, 2> kPositionModes = {
    {{pb::POSITION_MODE_ORIGINAL, PositionMode::kOriginal},
     {pb::POSITION_MODE_CACHE_RELATIVE, PositionMode::kCacheRelative}}};
constexpr EnumTable<KvDtype, 4> kDtypes = {{{pb::KV_DTYPE_F16, KvDtype::kF16},
                                            {pb::KV_DTYPE_BF16, KvDtype::kBF16},
                                            {pb::KV_DTYPE_F32, KvDtype::kF32},
                                            {pb::KV_DTYPE_K8V4, KvDtype::kK8V4}}};

constexpr EnumTable<PrefillAttention, 2> kPrefills = {
    {{pb::PREFILL_ATTENTION_DENSE, PrefillAttention::kDense},
     {pb::PREFILL_ATTENTION_VERTICAL_SLASH, PrefillAttention::kVerticalSlash}}};

template <typename Ours, size_t kSize>
bool find_ours(const EnumTable<Ours, kSize>& table, int proto, Ours& out) {
  for (const auto& [number, ours] : table) {
    if (number != proto) continue;
    out = ours;
    return true;
  }
  return false;
}

template <typename Ours, size_t kSize>
int find_proto(const EnumTable<Ours, kSize>& table, Ours value) {
  for (const auto& [number, ours] : table) {
    if (ours == value) return number;
  }
  PKV_CHECK(false, "an enumerator that the contract has no name for");
}

// What a parameter's proto field holds, and the member it sets. One alternative per type of value.
using Count = int32_t PolicyParams::*;
using OptionalCount = std::optional<int32_t> PolicyParams::*;
using Seed = uint64_t PolicyParams::*;
using Flag = bool PolicyParams::*;
struct Real {
  int64_t PolicyParams::*millionths;
};
struct Choice {
  bool (*set)(int proto, PolicyParams& params);  // false: no such value
  int (*get)(const PolicyParams& params);
};

template <auto kMember, const auto& kTable>
constexpr Choice choice() {
  return {[](int proto, PolicyParams& params) { return find_ours(kTable, proto, params.*kMember); },
          [](const PolicyParams& params) { return find_proto(kTable, params.*kMember); }};
}

struct Parameter {
  std::string_view name;  // of the proto field; of an enum's, where fields of one name have several, with its message
  std::variant<Count, OptionalCount, Seed, Flag, Real, Choice> value;
};

constexpr Parameter kParameters[] = {
    {"window_tokens", &PolicyParams::window_tokens},
    {"sink_tokens", &PolicyParams::sink_tokens},
    {"recent_tokens", &PolicyParams::recent_tokens},
    {"kernel_size", &PolicyParams::kernel_size},
    {"pooling", choice<&PolicyParams::pooling, kPoolings>()},
    {"group_aggregation", choice<&PolicyParams::group_aggregation, kAggregations>()},
    {"floor", Real{&PolicyParams::floor_millionths}},
    {"beta", Real{&PolicyParams::beta_millionths}},
    {"PyramidKvPolicy.allocation", choice<&PolicyParams::allocation, kAllocations>()},
    {"FunnelPolicy.allocation", choice<&PolicyParams::funnel_allocation, kFunnelAllocations>()},
    {"observed_rows", &PolicyParams::observed_rows},
    {"refit_values", &PolicyParams::refit_values},
    {"score", choice<&PolicyParams::h2o_score, kH2oScores>()},
    {"position_mode", choice<&PolicyParams::position_mode, kPositionModes>()},
    {"seed", &PolicyParams::seed},
};

const Parameter& parameter(const FieldDescriptor& field) {
  for (const Parameter& row : kParameters) {
    if (row.name == field.name() || row.name == field.containing_type()->name() + "." + field.name()) return row;
  }
  PKV_CHECK(false, "a policy's field without a row");
}

// From a set field of a policy's message.
struct FieldReader {
  const PolicyRow& policy;
  const Message& message;
  const FieldDescriptor* field;
  const std::string& path;
  PolicyParams& params;

  absl::Status operator()(Count member) const { return count(params.*member); }
  absl::Status operator()(OptionalCount member) const { return count((params.*member).emplace()); }
  absl::Status operator()(Seed member) const {
    params.*member = message.GetReflection()->GetUInt64(message, field);
    return absl::OkStatus();
  }
  absl::Status operator()(Flag member) const {
    params.*member = message.GetReflection()->GetBool(message, field);
    return absl::OkStatus();
  }
  absl::Status operator()(const Real& real) const {
    return read_millionths(message.GetReflection()->GetDouble(message, field), 0, kMaxReal * kMillion, path,
                           params.*real.millionths);
  }
  absl::Status operator()(const Choice& choice) const {
    const int value = message.GetReflection()->GetEnumValue(message, field);
    if (value == 0 || choice.set(value, params)) return absl::OkStatus();  // 0, unspecified: the default
    return bad_cache_policy(path, "has no such value for this field");
  }

 private:
  // What no policy could hold is told the policy's own range, which is narrower.
  absl::Status count(int32_t& out) const {
    const uint32_t value = message.GetReflection()->GetUInt32(message, field);
    if (value <= kMaxTokens) return read_tokens(value, path, out);
    const auto info = std::ranges::find(policy.parameters, field->name(), &ParameterInfo::name);
    PKV_CHECK(info != policy.parameters.end(), "a policy's field without a range");
    return bad_cache_policy(path, absl::StrCat("must be ", std::string(info->range), ", not ", value));
  }
};

struct FieldWriter {
  const PolicyParams& params;
  const FieldDescriptor* field;
  Message& message;

  void operator()(Count member) const {
    message.GetReflection()->SetUInt32(&message, field, static_cast<uint32_t>(params.*member));
  }
  void operator()(OptionalCount member) const {
    if (!(params.*member).has_value()) return;
    message.GetReflection()->SetUInt32(&message, field, static_cast<uint32_t>(*(params.*member)));
  }
  void operator()(Seed member) const { message.GetReflection()->SetUInt64(&message, field, params.*member); }
  void operator()(Flag member) const { message.GetReflection()->SetBool(&message, field, params.*member); }
  void operator()(const Real& real) const {
    message.GetReflection()->SetDouble(&message, field,
                                       static_cast<double>(params.*real.millionths) / static_cast<double>(kMillion));
  }
  void operator()(const Choice& choice) const {
    message.GetReflection()->SetEnumValue(&message, field, choice.get(params));
  }
};

}  // namespace

absl::Status read_millionths(double value, int64_t min, int64_t max, const std::string& field, int64_t& out) {
  constexpr double kScale = static_cast<double>(kMillion);
  if (std::abs(value) <= static_cast<double>(kMaxReal)) {  // false for NaN
    out = to_millionths(value);
    if (min <= out && out <= max) return absl::OkStatus();
  }
  return bad_cache_policy(field, absl::StrCat("must be from ", show_real(static_cast<double>(min) / kScale), " to ",
                                              show_real(static_cast<double>(max) / kScale)));
}

absl::Status read_tokens(uint32_t value, const std::string& field, int32_t& out) {
  if (value > kMaxTokens) return bad_cache_policy(field, absl::StrCat("must be at most ", kMaxTokens, ", not ", value));
  out = static_cast<int32_t>(value);
  return absl::OkStatus();
}

absl::Status read_parameters(const pb::CachePolicy& wished, PolicyParams& params) {
  const auto* policies = pb::CachePolicy::descriptor()->FindOneofByName("policy");
  const FieldDescriptor* policy = wished.GetReflection()->GetOneofFieldDescriptor(wished, policies);
  const Message& message = wished.GetReflection()->GetMessage(wished, policy);
  const PolicyRow* row = find_policy(policy->name());
  PKV_CHECK(row != nullptr, "parameters of a policy that is not built");
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const std::string path = absl::StrCat("cache_policy.", policy->name(), ".", field->name());
    const FieldReader reader{*row, message, field, path, params};
    PKV_RETURN_IF_ERROR(std::visit(reader, parameter(*field).value));
  }
  return absl::OkStatus();
}

void write_parameters(const PolicySpec& spec, pb::CachePolicy& out) {
  const FieldDescriptor* policy =
      pb::CachePolicy::descriptor()->FindFieldByName(std::string(policy_row(spec.kind).name));
  PKV_CHECK(policy != nullptr, "a policy that the contract does not have");
  Message& message = *out.GetReflection()->MutableMessage(&out, policy);
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* field = message.GetDescriptor()->field(i);
    std::visit(FieldWriter{spec.params, field, message}, parameter(*field).value);
  }
}

absl::Status read_kv_dtype(pb::KvDtype wished, KvDtype& out) {
  if (wished == pb::KV_DTYPE_UNSPECIFIED || find_ours(kDtypes, wished, out)) return absl::OkStatus();
  return bad_cache_policy("cache_policy.kv_dtype", "has no such value for this field");
}

absl::Status read_prefill(const pb::CachePolicy& wished, PolicySpec& spec) {
  if (wished.prefill() != pb::PREFILL_ATTENTION_UNSPECIFIED && !find_ours(kPrefills, wished.prefill(), spec.prefill)) {
    return bad_cache_policy("cache_policy.prefill", "has no such value for this field");
  }
  if (!wished.has_prefill_tokens()) return absl::OkStatus();
  if (spec.prefill == PrefillAttention::kDense) {
    return bad_cache_policy("cache_policy.prefill_tokens", "needs the prefill VERTICAL_SLASH");
  }
  if (wished.prefill_tokens() < kLeastPrefillTokens) {
    return bad_cache_policy("cache_policy.prefill_tokens", absl::StrCat("must be at least ", kLeastPrefillTokens));
  }
  return read_tokens(wished.prefill_tokens(), "cache_policy.prefill_tokens", spec.prefill_tokens);
}

void write_prefill(const PolicySpec& spec, pb::CachePolicy& out) {
  out.set_prefill(static_cast<pb::PrefillAttention>(find_proto(kPrefills, spec.prefill)));
  if (spec.prefill != PrefillAttention::kDense) out.set_prefill_tokens(static_cast<uint32_t>(spec.prefill_tokens));
}

pb::KvDtype to_proto(KvDtype dtype) { return static_cast<pb::KvDtype>(find_proto(kDtypes, dtype)); }

}  // namespace pkv
