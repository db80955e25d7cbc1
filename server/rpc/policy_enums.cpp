#include "server/rpc/policy_enums.h"

#include <array>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "server/rpc/policy_catalog.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

// Pairs of a proto value and ours.
template <typename Proto, typename Ours, size_t kSize>
using EnumTable = std::array<std::pair<Proto, Ours>, kSize>;

constexpr EnumTable<pb::Pooling, PoolKind, 3> kPoolings = {
    {{pb::POOLING_MAX, PoolKind::kMax}, {pb::POOLING_AVG, PoolKind::kAvg}, {pb::POOLING_NONE, PoolKind::kNone}}};
constexpr EnumTable<pb::Aggregation, GroupReduce, 3> kAggregations = {{{pb::AGGREGATION_SUM, GroupReduce::kSum},
                                                                       {pb::AGGREGATION_MEAN, GroupReduce::kMean},
                                                                       {pb::AGGREGATION_MAX, GroupReduce::kMax}}};
constexpr EnumTable<pb::PyramidAllocation, PyramidAllocation, 2> kAllocations = {
    {{pb::PYRAMID_ALLOCATION_EXACT, PyramidAllocation::kExact},
     {pb::PYRAMID_ALLOCATION_FACTORY, PyramidAllocation::kFactory}}};
constexpr EnumTable<pb::KvDtype, KvDtype, 2> kDtypes = {
    {{pb::KV_DTYPE_F16, KvDtype::kF16}, {pb::KV_DTYPE_F32, KvDtype::kF32}}};

template <typename Proto, typename Ours, size_t kSize>
std::optional<Ours> find_ours(const EnumTable<Proto, Ours, kSize>& table, Proto value) {
  for (const auto& [proto, ours] : table) {
    if (proto == value) return ours;
  }
  return std::nullopt;
}

template <typename Proto, typename Ours, size_t kSize>
Proto find_proto(const EnumTable<Proto, Ours, kSize>& table, Ours value) {
  for (const auto& [proto, ours] : table) {
    if (ours == value) return proto;
  }
  return static_cast<Proto>(0);
}

template <typename Message>
void set_window(const PolicyParams& params, Message& message) {
  message.set_window_tokens(static_cast<uint32_t>(params.window_tokens));
  message.set_kernel_size(static_cast<uint32_t>(params.kernel_size));
  message.set_pooling(find_proto(kPoolings, params.pooling));
  message.set_group_aggregation(find_proto(kAggregations, params.group_aggregation));
}

// "max" -> POOLING_MAX, through the proto's own names.
template <typename Proto>
absl::Status parse_word(const char* key, const std::string& prefix, const std::string& word,
                        bool (*parse)(google::protobuf::ConstStringParam, Proto*), Proto& out) {
  if (parse(prefix + absl::AsciiStrToUpper(word), &out)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(key, ": \"", word, "\" is not known"));
}

template <typename Message>
absl::Status set_window(const PolicyPreset& preset, Message& message) {
  absl::Status status;
  if (preset.window_tokens) message.set_window_tokens(static_cast<uint32_t>(*preset.window_tokens));
  if (preset.kernel_size) message.set_kernel_size(static_cast<uint32_t>(*preset.kernel_size));
  if (preset.pooling) {
    pb::Pooling value{};
    status.Update(parse_word("pooling", "POOLING_", *preset.pooling, pb::Pooling_Parse, value));
    message.set_pooling(value);
  }
  if (preset.group_aggregation) {
    pb::Aggregation value{};
    status.Update(
        parse_word("group_aggregation", "AGGREGATION_", *preset.group_aggregation, pb::Aggregation_Parse, value));
    message.set_group_aggregation(value);
  }
  return status;
}

absl::Status set_pyramid(const PolicyPreset& preset, pb::PyramidKvPolicy& message) {
  absl::Status status = set_window(preset, message);
  if (preset.beta) message.set_beta(*preset.beta);
  if (preset.allocation) {
    pb::PyramidAllocation value{};
    status.Update(
        parse_word("allocation", "PYRAMID_ALLOCATION_", *preset.allocation, pb::PyramidAllocation_Parse, value));
    message.set_allocation(value);
  }
  return status;
}

absl::Status refuse_parameters(const PolicyPreset& preset, bool window, bool pyramid) {
  const auto refuse = [&](const char* key) {
    return absl::InvalidArgumentError(absl::StrCat(key, ": the policy ", preset.policy, " has no such parameter"));
  };
  if (!window && preset.window_tokens) return refuse("window_tokens");
  if (!window && preset.kernel_size) return refuse("kernel_size");
  if (!window && preset.pooling) return refuse("pooling");
  if (!window && preset.group_aggregation) return refuse("group_aggregation");
  if (!pyramid && preset.beta) return refuse("beta");
  if (!pyramid && preset.allocation) return refuse("allocation");
  return absl::OkStatus();
}

}  // namespace

std::optional<PoolKind> from_proto(pb::Pooling value) { return find_ours(kPoolings, value); }
std::optional<GroupReduce> from_proto(pb::Aggregation value) { return find_ours(kAggregations, value); }
std::optional<PyramidAllocation> from_proto(pb::PyramidAllocation value) { return find_ours(kAllocations, value); }
std::optional<KvDtype> from_proto(pb::KvDtype value) { return find_ours(kDtypes, value); }
pb::KvDtype to_proto(KvDtype dtype) { return find_proto(kDtypes, dtype); }

pb::CachePolicy to_proto(const PolicySpec& spec) {
  pb::CachePolicy message;
  switch (spec.kind) {
    case PolicyKind::kFull:
      message.mutable_full();
      break;
    case PolicyKind::kSnapKv:
      set_window(spec.params, *message.mutable_snapkv());
      break;
    case PolicyKind::kPyramidKv: {
      pb::PyramidKvPolicy& pyramid = *message.mutable_pyramidkv();
      set_window(spec.params, pyramid);
      pyramid.set_beta(static_cast<double>(spec.params.beta_millionths) / static_cast<double>(kMillion));
      pyramid.set_allocation(find_proto(kAllocations, spec.params.allocation));
      break;
    }
  }
  if (spec.budget.kind != BudgetKind::kNone) {
    pb::CacheBudget& budget = *message.mutable_budget();
    budget.set_scope(pb::BUDGET_SCOPE_PROMPT);
    if (spec.budget.kind == BudgetKind::kTokens) {
      budget.set_tokens(static_cast<uint32_t>(spec.budget.tokens));
    } else {
      budget.set_keep_ratio(static_cast<double>(spec.budget.keep_ratio_millionths) / static_cast<double>(kMillion));
    }
  }
  message.set_kv_dtype(to_proto(spec.kv_dtype));
  message.set_pin_system_message(false);
  return message;
}

absl::StatusOr<pb::CachePolicy> preset_message(const PolicyPreset& preset) {
  pb::CachePolicy message;
  absl::Status status;
  if (preset.policy == "snapkv") {
    status = refuse_parameters(preset, true, false);
    status.Update(set_window(preset, *message.mutable_snapkv()));
  } else if (preset.policy == "pyramidkv") {
    status = refuse_parameters(preset, true, true);
    status.Update(set_pyramid(preset, *message.mutable_pyramidkv()));
  } else {
    status = refuse_parameters(preset, false, false);
    message.mutable_full();
  }
  if (preset.tokens && preset.keep_ratio)
    status.Update(absl::InvalidArgumentError("keep_ratio: tokens are given as well"));
  if (preset.tokens) message.mutable_budget()->set_tokens(static_cast<uint32_t>(*preset.tokens));
  if (preset.keep_ratio) message.mutable_budget()->set_keep_ratio(*preset.keep_ratio);
  if (preset.kv_dtype) {
    pb::KvDtype value{};
    status.Update(parse_word("kv_dtype", "KV_DTYPE_", *preset.kv_dtype, pb::KvDtype_Parse, value));
    message.set_kv_dtype(value);
  }
  if (!status.ok()) return status;
  return message;
}

}  // namespace pkv
