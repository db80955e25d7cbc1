// Policy names, parameters and enum words come from the messages' descriptors, so a policy added to the contract needs
// no line here. What the values mean is decided by the server alone.
#include "client/policy_options.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/policy_words.h"
#include "client/proto_words.h"
#include "client/sizes.h"

namespace pkv::client {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// The message field of the policy called `name`; nullptr where no policy is called so.
const FieldDescriptor* policy_field(const std::string& name) {
  const FieldDescriptor* field = v1::CachePolicy::descriptor()->FindFieldByName(name);
  const bool policy = field && field->containing_oneof() && field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
  return policy ? field : nullptr;
}

std::string not_one_of(const char* option, const std::string& word, const google::protobuf::EnumDescriptor& type) {
  return absl::StrCat(option, ": '", word, "' is not one of ", absl::StrJoin(enum_words(type), " "));
}

std::string set_parameter(Message& policy, const std::string& name, const std::string& text) {
  const std::vector<std::string> words = absl::StrSplit(text, absl::MaxSplits('=', 1));
  if (words.size() != 2 || words[0].empty()) return absl::StrCat("--param: '", text, "' is not KEY=VALUE");
  const auto& type = *policy.GetDescriptor();
  const FieldDescriptor* field = type.FindFieldByName(words[0]);
  if (!field) {
    std::vector<std::string> known;
    for (int i = 0; i < type.field_count(); ++i) known.push_back(type.field(i)->name());
    return absl::StrCat("--param: ", name, " has no parameter '", words[0], "', ",
                        known.empty() ? "nor any other" : absl::StrCat("only ", absl::StrJoin(known, ", ")));
  }
  if (set_field(policy, *field, words[1])) return "";
  return absl::StrCat("--param: ", words[0], " is ", expected_value(*field), ", not '", words[1], "'");
}

std::string choose_policy(const PolicyOptions& options, v1::CachePolicy& policy) {
  const std::string& name = options.policy;
  if (!options.preset.empty() && !name.empty()) return "--policy and --preset exclude each other";
  if (const FieldDescriptor* field = policy_field(name)) {
    Message& parameters = *policy.GetReflection()->MutableMessage(&policy, field);
    for (const std::string& text : options.params) {
      if (std::string error = set_parameter(parameters, name, text); !error.empty()) return error;
    }
    return "";
  }
  if (!options.params.empty())
    return "--param and its short forms need --policy with the name of a policy: they set its parameters";
  const std::string& preset = options.preset.empty() ? name : options.preset;
  if (!preset.empty()) policy.set_preset(preset);
  return "";
}

std::string set_budget(const PolicyOptions& options, v1::CachePolicy& policy) {
  if (!options.budget.empty()) {
    if (std::string error = parse_budget(options.budget, *policy.mutable_budget()); !error.empty()) return error;
  }
  if (!options.scope.empty()) {
    const auto scope = enum_number(*v1::BudgetScope_descriptor(), options.scope);
    if (!scope) return not_one_of("--scope", options.scope, *v1::BudgetScope_descriptor());
    policy.mutable_budget()->set_scope(static_cast<v1::BudgetScope>(*scope));
  }
  if (!options.max_bytes.empty()) {
    const auto bytes = parse_bytes(options.max_bytes, true);
    if (!bytes) return absl::StrCat("--max-bytes: '", options.max_bytes, "' is no size (", kSizeForms, ")");
    policy.mutable_budget()->set_max_bytes(*bytes);
  }
  if (options.interval_tokens) policy.mutable_budget()->set_interval_tokens(*options.interval_tokens);
  if (options.allow_shortfall) policy.mutable_budget()->set_allow_shortfall(true);
  return "";
}

std::string add_pin(const std::string& text, v1::CachePolicy& policy) {
  const std::vector<std::string> ends = absl::StrSplit(text, ':');
  uint32_t begin = 0, end = 0;
  if (ends.size() != 2 || !absl::SimpleAtoi(ends[0], &begin) || !absl::SimpleAtoi(ends[1], &end)) {
    return absl::StrCat("--pin: '", text, "' is not BEGIN:END, the first position and one past the last");
  }
  auto& span = *policy.add_pins();
  span.set_begin(begin);
  span.set_end(end);
  return "";
}

// NAME[:BUDGET[:SCOPE[:FORMAT]]] into `options`, over what is there. A budget by recall has a colon of its own.
std::string read_notation(const std::string& text, PolicyOptions& options) {
  std::vector<std::string> parts = absl::StrSplit(text, ':');
  if (parts.size() > 2 && parts[1] == "recall") {
    parts[1] = absl::StrCat("recall:", parts[2]);
    parts.erase(parts.begin() + 2);
  }
  if (parts.size() > 4 || parts[0].empty()) return "not NAME[:BUDGET[:SCOPE[:FORMAT]]]";
  options.policy = parts[0];
  if (options.policy == "full") {
    options = {.policy = "full",
               .kv_dtype = options.kv_dtype,
               .prefill = options.prefill,
               .prefill_tokens = options.prefill_tokens};
  }
  if (parts.size() > 1 && !parts[1].empty()) options.budget = parts[1];
  if (parts.size() > 2 && !parts[2].empty()) options.scope = parts[2];
  if (parts.size() > 3) options.kv_dtype = parts[3];
  return "";
}

std::string describe_budget(const v1::CacheBudget& budget) {
  switch (budget.amount_case()) {
    case v1::CacheBudget::kTokens:
      return absl::StrCat("budget ", budget.tokens(), " entries per head");
    case v1::CacheBudget::kKeepRatio:
      return absl::StrFormat("budget %.4g %% of the prompt", 100 * budget.keep_ratio());
    case v1::CacheBudget::kBytes:
      return absl::StrCat("budget ", size_word(budget.bytes()));
    case v1::CacheBudget::kMinRecall:
      return absl::StrFormat("budget by recall %.6g", budget.min_recall());
    case v1::CacheBudget::AMOUNT_NOT_SET:
      break;
  }
  return "";
}

}  // namespace

std::string build_policy(const PolicyOptions& options, v1::CachePolicy& policy) {
  if (std::string error = choose_policy(options, policy); !error.empty()) return error;
  if (std::string error = set_budget(options, policy); !error.empty()) return error;
  if (!options.kv_dtype.empty()) {
    const auto dtype = enum_number(*v1::KvDtype_descriptor(), options.kv_dtype);
    if (!dtype) return not_one_of("--kv-dtype", options.kv_dtype, *v1::KvDtype_descriptor());
    policy.set_kv_dtype(static_cast<v1::KvDtype>(*dtype));
  }
  if (!options.prefill.empty()) {
    const auto prefill = enum_number(*v1::PrefillAttention_descriptor(), options.prefill);
    if (!prefill) return not_one_of("--prefill", options.prefill, *v1::PrefillAttention_descriptor());
    policy.set_prefill(static_cast<v1::PrefillAttention>(*prefill));
  }
  if (options.prefill_tokens) policy.set_prefill_tokens(*options.prefill_tokens);
  for (const std::string& pin : options.pins) {
    if (std::string error = add_pin(pin, policy); !error.empty()) return error;
  }
  if (options.pin_system) policy.set_pin_system_message(true);
  return "";
}

std::vector<std::string> policy_names() {
  std::vector<std::string> names;
  const auto& type = *v1::CachePolicy::descriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    if (policy_field(type.field(i)->name())) names.push_back(type.field(i)->name());
  }
  return names;
}

std::string parse_budget(const std::string& text, v1::CacheBudget& budget) {
  const std::string complaint = absl::StrCat(
      "--budget: '", text,
      "' is no number of entries per head (128), share of the prompt (12%), share of the attention (recall:0.95) or "
      "size (",
      kSizeForms, ")");
  absl::string_view rest = text;
  double number = 0;
  if (absl::ConsumePrefix(&rest, "recall:")) {
    if (!absl::SimpleAtod(rest, &number) || !std::isfinite(number)) return complaint;
    budget.set_min_recall(number);
    return "";
  }
  if (absl::ConsumeSuffix(&rest, "%")) {
    if (!absl::SimpleAtod(rest, &number) || !std::isfinite(number)) return complaint;
    // The server would refuse it too, but in shares of 1.
    if (number <= 0 || number > 100)
      return absl::StrCat("--budget: '", text, "' is no share of the prompt, which is over 0% and at most 100%");
    budget.set_keep_ratio(number / 100);
    return "";
  }
  if (const auto bytes = parse_bytes(text, false)) {
    budget.set_bytes(*bytes);
    return "";
  }
  uint32_t tokens = 0;
  if (!absl::SimpleAtoi(rest, &tokens)) return complaint;
  budget.set_tokens(tokens);
  return "";
}

std::string parse_policies(const std::string& list, const PolicyOptions& common, std::vector<NamedPolicy>& policies) {
  for (const auto part : absl::StrSplit(list, ',')) {
    NamedPolicy named{.text = std::string(absl::StripAsciiWhitespace(part))};
    PolicyOptions options = common;
    std::string error = read_notation(named.text, options);
    if (error.empty()) error = build_policy(options, named.policy);
    if (!error.empty()) return absl::StrCat("--policies: '", named.text, "': ", error);
    policies.push_back(std::move(named));
  }
  return "";
}

std::string describe_policy(const v1::CachePolicy& policy) {
  std::vector<std::string> parts;
  const FieldDescriptor* field =
      policy.GetReflection()->GetOneofFieldDescriptor(policy, v1::CachePolicy::descriptor()->FindOneofByName("policy"));
  if (!field) {
    parts.push_back("the server's default policy");
  } else {
    parts.push_back(policy.has_preset() ? absl::StrCat("preset ", policy.preset()) : field->name());
  }
  if (std::string budget = describe_budget(policy.budget()); !budget.empty()) parts.push_back(budget);
  if (policy.budget().scope() != v1::BUDGET_SCOPE_UNSPECIFIED) {
    parts.push_back(absl::StrCat("scope ", enum_word(*v1::BudgetScope_descriptor(), policy.budget().scope())));
  }
  if (policy.budget().has_max_bytes())
    parts.push_back(absl::StrCat("at most ", size_word(policy.budget().max_bytes())));
  if (policy.has_kv_dtype())
    parts.push_back(absl::StrCat("entries ", enum_word(*v1::KvDtype_descriptor(), policy.kv_dtype())));
  if (policy.prefill() == v1::PREFILL_ATTENTION_VERTICAL_SLASH)
    parts.push_back(absl::StrCat("prefill vertical_slash ", policy.prefill_tokens()));
  for (const auto& pin : policy.pins()) parts.push_back(absl::StrCat("pinned ", pin.begin(), ":", pin.end()));
  if (policy.pin_system_message()) parts.push_back("system message pinned");
  if (field && !policy.has_preset()) {
    const Message& parameters = policy.GetReflection()->GetMessage(policy, field);
    std::vector<const FieldDescriptor*> set;
    parameters.GetReflection()->ListFields(parameters, &set);
    for (const FieldDescriptor* parameter : set)
      parts.push_back(absl::StrCat(parameter->name(), "=", field_text(parameters, *parameter)));
  }
  return absl::StrJoin(parts, ", ");
}

}  // namespace pkv::client
