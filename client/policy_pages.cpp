// Lays out policies and presets in tables.
#include "client/policy_pages.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/policy_advice.h"
#include "client/policy_options.h"
#include "client/policy_words.h"
#include "client/proto_words.h"
#include "client/sizes.h"
#include "client/text_table.h"

namespace pkv::client {
namespace {

using Words = std::vector<std::string>;

std::string paragraph(const std::string& text, size_t width) {
  return absl::StrJoin(wrapped(text, width), "\n") + "\n";
}

std::string scope_word(const v1::CacheBudget& budget) {
  if (budget.scope() != v1::BUDGET_SCOPE_UNSPECIFIED) return enum_word(*v1::BudgetScope_descriptor(), budget.scope());
  return budget.amount_case() == v1::CacheBudget::kBytes ? "total" : "prompt";
}

// Everything but name, amount and scope.
std::string other_settings(const v1::CachePolicy& policy) {
  Words settings = parameter_words(policy);
  const v1::CacheBudget& budget = policy.budget();
  if (budget.has_interval_tokens()) settings.push_back(absl::StrCat("interval=", budget.interval_tokens()));
  if (budget.has_max_bytes()) settings.push_back(absl::StrCat("max_bytes=", size_word(budget.max_bytes())));
  if (budget.allow_shortfall()) settings.emplace_back("allow_shortfall");
  if (policy.has_kv_dtype())
    settings.push_back(absl::StrCat("kv_dtype=", enum_word(*v1::KvDtype_descriptor(), policy.kv_dtype())));
  if (policy.prefill() == v1::PREFILL_ATTENTION_VERTICAL_SLASH)
    settings.push_back(absl::StrCat("prefill=vertical_slash prefill_tokens=", policy.prefill_tokens()));
  return settings.empty() ? "-" : absl::StrJoin(settings, " ");
}

// A preset without what its policy has anyway.
v1::CachePolicy changes_only(v1::CachePolicy policy, const v1::CachePolicyInfo* info) {
  if (!info) return policy;
  if (policy.kv_dtype() == info->defaults().kv_dtype()) policy.clear_kv_dtype();
  const auto* field =
      policy.GetReflection()->GetOneofFieldDescriptor(policy, v1::CachePolicy::descriptor()->FindOneofByName("policy"));
  const std::vector<std::string> usual = parameter_words(info->defaults());
  google::protobuf::Message& parameters = *policy.GetReflection()->MutableMessage(&policy, field);
  std::vector<const google::protobuf::FieldDescriptor*> set;
  parameters.GetReflection()->ListFields(parameters, &set);
  for (const auto* parameter : set) {
    const std::string word = absl::StrCat(parameter->name(), "=", field_text(parameters, *parameter));
    if (std::find(usual.begin(), usual.end(), word) != usual.end())
      parameters.GetReflection()->ClearField(&parameters, parameter);
  }
  return policy;
}

// The row that policies and presets share: name, policy, budget, what it covers, settings.
Words table_row(const std::string& name, const v1::CachePolicy& policy) {
  const bool takes_budget = !policy.has_full();
  const std::string budget = budget_word(policy.budget());
  return {name, policy_name(policy), takes_budget && !budget.empty() ? budget : "-",
          takes_budget ? scope_word(policy.budget()) : "-", other_settings(policy)};
}

const v1::CachePolicyInfo* find_policy(const v1::ListCachePoliciesResponse& list, const std::string& name) {
  const auto found = std::find_if(list.policies().begin(), list.policies().end(),
                                  [&](const auto& policy) { return policy.name() == name; });
  return found == list.policies().end() ? nullptr : &*found;
}

// The parameters' defaults alone: entry format and pins are the same for all.
v1::CachePolicy without_common(v1::CachePolicy policy) {
  policy.clear_kv_dtype();
  policy.clear_prefill();
  policy.clear_pin_system_message();
  return policy;
}

// `set`: values that take the defaults' place, "beta=20" each.
std::string parameters_table(const v1::CachePolicyInfo& policy, const Words& set, size_t width) {
  if (policy.parameters().empty()) return "It has no parameters.\n";
  TextTable table{.rows = {{"parameter", set.empty() ? "default" : "value", "range", "what it does"}}, .width = width};
  for (const v1::ParameterInfo& parameter : policy.parameters()) {
    std::string value = absl::AsciiStrToLower(parameter.default_value());
    for (const std::string& word : set) {
      if (absl::StartsWith(word, parameter.name() + "=")) value = word.substr(parameter.name().size() + 1);
    }
    const bool words = absl::StrContains(parameter.range(), parameter.default_value());  // of an enum
    table.rows.push_back({parameter.name(), value, words ? absl::AsciiStrToLower(parameter.range()) : parameter.range(),
                          parameter.description()});
  }
  return text_table(table);
}

Words generate_with(const v1::CachePolicy& policy) {
  Words words{"pyramidkv", "generate", "--prompt-file", "FILE"};
  const Words flags = policy_flags(policy);
  words.insert(words.end(), flags.begin(), flags.end());
  return words;
}

// A policy of the name with an ordinary budget and its first parameter at its default, to be changed.
v1::CachePolicy example_of(const v1::CachePolicyInfo& policy) {
  PolicyOptions options{.policy = policy.name()};
  if (!policy.defaults().has_full()) options.budget = "128";
  const Words parameters = parameter_words(policy.defaults());
  if (!parameters.empty()) options.params = {parameters.front()};
  v1::CachePolicy example;
  return build_policy(options, example).empty() ? example : policy.defaults();
}

std::string detail_of(const v1::CachePolicyInfo& policy, size_t width) {
  std::string text = paragraph(
      absl::StrCat(policy.name(), ": ", policy.summary(), policy.enabled() ? "" : " (switched off on this server)"),
      width);
  if (!policy.source().empty()) text += paragraph("From " + policy.source() + ".", width);
  if (const std::string advice = policy_advice(policy.name()); !advice.empty()) text += "\n" + paragraph(advice, width);
  absl::StrAppend(&text, "\n", parameters_table(policy, {}, width));
  if (const std::string budget = budget_word(policy.defaults().budget()); !budget.empty())
    absl::StrAppend(&text, "Where a request names no budget it has ", budget, ".\n");
  return absl::StrCat(text, "\n", shell_command(generate_with(example_of(policy))), "\n");
}

std::string detail_of(const v1::CachePreset& preset, const v1::ListCachePoliciesResponse& list, size_t width) {
  const std::string base = policy_name(preset.policy());
  std::string text =
      absl::StrCat(preset.name(), ": a preset of this server\n", paragraph(describe_policy(preset.policy()), width));
  if (const v1::CachePolicyInfo* policy = find_policy(list, base)) {
    if (!preset.policy().has_full())
      absl::StrAppend(&text, "\n", paragraph(absl::StrCat(base, " keeps ", policy->summary(), "."), width));
    if (const std::string advice = policy_advice(base); !advice.empty()) text += paragraph(advice, width);
    absl::StrAppend(&text, "\n", parameters_table(*policy, parameter_words(preset.policy()), width));
  }
  v1::CachePolicy by_name;
  by_name.set_preset(preset.name());
  return absl::StrCat(text, "\n", shell_command(generate_with(by_name)), "\nis short for\n",
                      shell_command(generate_with(preset.policy())), "\n");
}

}  // namespace

std::string policies_page(const v1::ListCachePoliciesResponse& list, size_t width) {
  TextTable keeps{.rows = {{"policy", "what it keeps"}}, .width = width};
  TextTable settings{.rows = {{"name", "policy", "budget", "covers", "settings"}}, .width = width};
  for (const v1::CachePolicyInfo& policy : list.policies()) {
    keeps.rows.push_back({policy.name(), absl::StrCat(policy.summary(), policy.enabled() ? "" : " (switched off)")});
    settings.rows.push_back(table_row(policy.name(), without_common(policy.defaults())));
  }
  for (const v1::CachePreset& preset : list.presets())
    settings.rows.push_back(
        table_row(preset.name(), changes_only(preset.policy(), find_policy(list, policy_name(preset.policy())))));
  std::string text = text_table(keeps);
  absl::StrAppend(
      &text, "\n",
      paragraph("What a request gets that says no more than the name. Presets are from the server's configuration; of "
                "their settings, those are listed that their policy does not have anyway.",
                width),
      text_table(settings));
  if (const std::string name = policy_name(list.default_policy()); !name.empty())
    absl::StrAppend(&text, "\nRequests that name no policy get ", name, ".\n");
  return absl::StrCat(text, paragraph(policy_advice(), width), "'pyramidkv policies NAME' tells more about one.\n");
}

std::string policy_page(const v1::ListCachePoliciesResponse& list, const std::string& name, size_t width) {
  if (const v1::CachePolicyInfo* policy = find_policy(list, name)) return detail_of(*policy, width);
  for (const v1::CachePreset& preset : list.presets()) {
    if (preset.name() == name) return detail_of(preset, list, width);
  }
  return "";
}

}  // namespace pkv::client
