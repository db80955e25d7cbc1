// Takes a policy apart through its descriptor, so that a new policy needs no line here.
#include "client/policy_words.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "client/proto_words.h"
#include "client/sizes.h"

namespace pkv::client {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

const FieldDescriptor* chosen_field(const v1::CachePolicy& policy) {
  return policy.GetReflection()->GetOneofFieldDescriptor(policy,
                                                         v1::CachePolicy::descriptor()->FindOneofByName("policy"));
}

void add_budget_flags(const v1::CacheBudget& budget, std::vector<std::string>& flags) {
  const auto add = [&](const char* name, const std::string& value) { flags.insert(flags.end(), {name, value}); };
  if (const std::string word = budget_word(budget); !word.empty()) add("--budget", word);
  if (budget.scope() != v1::BUDGET_SCOPE_UNSPECIFIED)
    add("--scope", enum_word(*v1::BudgetScope_descriptor(), budget.scope()));
  if (budget.has_interval_tokens()) add("--interval", absl::StrCat(budget.interval_tokens()));
  if (budget.has_max_bytes()) add("--max-bytes", size_word(budget.max_bytes()));
  if (budget.allow_shortfall()) flags.emplace_back("--allow-shortfall");
}

}  // namespace

std::string policy_name(const v1::CachePolicy& policy) {
  if (policy.has_preset()) return policy.preset();
  const FieldDescriptor* field = chosen_field(policy);
  return field ? field->name() : "";
}

std::string budget_word(const v1::CacheBudget& budget) {
  switch (budget.amount_case()) {
    case v1::CacheBudget::kTokens:
      return absl::StrCat(budget.tokens());
    case v1::CacheBudget::kKeepRatio:
      return absl::StrFormat("%.6g%%", 100 * budget.keep_ratio());
    case v1::CacheBudget::kBytes:
      return size_word(budget.bytes());
    case v1::CacheBudget::kMinRecall:
      return absl::StrFormat("recall:%.6g", budget.min_recall());
    case v1::CacheBudget::AMOUNT_NOT_SET:
      break;
  }
  return "";
}

std::vector<std::string> parameter_words(const v1::CachePolicy& policy) {
  const FieldDescriptor* field = chosen_field(policy);
  if (!field || policy.has_preset()) return {};
  const Message& parameters = policy.GetReflection()->GetMessage(policy, field);
  std::vector<const FieldDescriptor*> set;
  parameters.GetReflection()->ListFields(parameters, &set);
  std::vector<std::string> words;
  for (const FieldDescriptor* parameter : set)
    words.push_back(absl::StrCat(parameter->name(), "=", field_text(parameters, *parameter)));
  return words;
}

std::vector<std::string> policy_flags(const v1::CachePolicy& policy) {
  std::vector<std::string> flags;
  if (const std::string name = policy_name(policy); !name.empty()) {
    // A preset that is named like a policy would be taken for that one.
    const bool ambiguous = policy.has_preset() && v1::CachePolicy::descriptor()->FindFieldByName(name);
    flags = {ambiguous ? "--preset" : "--policy", name};
  }
  add_budget_flags(policy.budget(), flags);
  if (policy.has_kv_dtype())
    flags.insert(flags.end(), {"--kv-dtype", enum_word(*v1::KvDtype_descriptor(), policy.kv_dtype())});
  if (policy.has_prefill())
    flags.insert(flags.end(), {"--prefill", enum_word(*v1::PrefillAttention_descriptor(), policy.prefill())});
  if (policy.has_prefill_tokens())
    flags.insert(flags.end(), {"--prefill-tokens", absl::StrCat(policy.prefill_tokens())});
  for (const std::string& word : parameter_words(policy)) flags.insert(flags.end(), {"--param", word});
  for (const auto& pin : policy.pins()) flags.insert(flags.end(), {"--pin", absl::StrCat(pin.begin(), ":", pin.end())});
  if (policy.pin_system_message()) flags.emplace_back("--pin-system");
  return flags;
}

std::string shell_word(absl::string_view word) {
  constexpr absl::string_view kPlain = "_./:%=,+@-";
  const bool plain = std::all_of(word.begin(), word.end(), [&](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || absl::StrContains(kPlain, c);
  });
  if (plain && !word.empty()) return std::string(word);
  return absl::StrCat("'", absl::StrReplaceAll(word, {{"'", "'\\''"}}), "'");
}

std::string shell_command(const std::vector<std::string>& words) {
  return absl::StrJoin(words, " ", [](std::string* out, const std::string& word) { *out += shell_word(word); });
}

}  // namespace pkv::client
