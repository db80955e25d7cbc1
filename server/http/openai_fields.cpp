#include "server/http/openai_fields.h"

#include <algorithm>
#include <array>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "server/api/errors.h"
#include "server/http/openai_error.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

template <typename Message>
Message& part_of(pb::GenerateRequest& message);
template <>
pb::GenerateRequest& part_of(pb::GenerateRequest& message) {
  return message;
}
template <>
pb::SamplingParams& part_of(pb::GenerateRequest& message) {
  return *message.mutable_sampling();
}
template <>
pb::OutputOptions& part_of(pb::GenerateRequest& message) {
  return *message.mutable_output();
}

template <typename Message, typename Value>
absl::Status set(const Json& value, const std::string& name, OpenAiRequest& request, void (Message::*setter)(Value)) {
  Value read{};
  PKV_RETURN_IF_ERROR(read_value(value, name, read));
  (part_of<Message>(request.message).*setter)(read);
  return absl::OkStatus();
}
// What a setter of the message takes as it is.
template <auto setter>
absl::Status set_by(const Json& value, const std::string& name, OpenAiRequest& request) {
  return set(value, name, request, setter);
}

absl::Status read_stop(const Json& value, const std::string& name, OpenAiRequest& request) {
  pb::SamplingParams& sampling = *request.message.mutable_sampling();
  if (!value.is_array()) return read_value(value, name, *sampling.add_stop());
  for (const Json& text : value) PKV_RETURN_IF_ERROR(read_value(text, name, *sampling.add_stop()));
  return absl::OkStatus();
}

absl::Status read_stop_ids(const Json& value, const std::string& name, OpenAiRequest& request) {
  if (!value.is_array()) return bad_input(name, "must be a list of token ids");
  for (const Json& id : value) {
    uint32_t number = 0;
    PKV_RETURN_IF_ERROR(read_value(id, name, number));
    request.message.mutable_sampling()->add_stop_token_ids(number);
  }
  return absl::OkStatus();
}

absl::Status read_bias(const Json& value, const std::string& name, OpenAiRequest& request) {
  if (!value.is_object()) return bad_input(name, "must be an object of token ids and numbers");
  for (const auto& [key, bias] : value.items()) {
    uint32_t id = 0;
    if (!absl::SimpleAtoi(key, &id)) return bad_input(name, "has a key that is no token id");
    float number = 0;
    PKV_RETURN_IF_ERROR(read_value(bias, absl::StrCat(name, "[", id, "]"), number));
    (*request.message.mutable_sampling()->mutable_logit_bias())[id] = number;
  }
  return absl::OkStatus();
}

// Also negative ones, by their bits: other servers take them.
absl::Status read_seed(const Json& value, const std::string& name, OpenAiRequest& request) {
  if (!value.is_number_integer()) return bad_input(name, "must be a whole number of 64 bits");
  request.answer.negative_seed = !value.is_number_unsigned();
  request.message.mutable_sampling()->set_seed(
      value.is_number_unsigned() ? value.get<uint64_t>() : static_cast<uint64_t>(value.get<int64_t>()));
  return absl::OkStatus();
}

absl::Status read_max_tokens(const Json& value, const std::string& name, OpenAiRequest& request) {
  pb::SamplingParams& sampling = *request.message.mutable_sampling();
  uint32_t number = 0;
  PKV_RETURN_IF_ERROR(read_value(value, name, number));
  if (sampling.has_max_tokens() && sampling.max_tokens() != number) {
    return bad_input(name, "max_tokens and max_completion_tokens differ; give one of the two");
  }
  sampling.set_max_tokens(number);
  return absl::OkStatus();
}

absl::Status read_stream_options(const Json& value, const std::string& name, OpenAiRequest& request) {
  if (!value.is_object()) return bad_input(name, "must be an object");
  for (const auto& [key, option] : value.items()) {
    const std::string path = absl::StrCat(name, ".", key);
    if (option.is_null()) continue;
    if (key == "include_usage") {
      PKV_RETURN_IF_ERROR(read_value(option, path, request.answer.include_usage));
    } else if (key != "include_obfuscation") {  // padding against eavesdroppers, which is allowed to be missing
      return unknown_field(name, key);
    }
  }
  return absl::OkStatus();
}

absl::Status read_policy(const Json& value, const std::string& name, OpenAiRequest& request) {
  return read_message(value, name, *request.message.mutable_cache_policy());
}

// By the enumerator's name or the last part of it.
absl::Status read_report(const Json& value, const std::string& name, OpenAiRequest& request) {
  std::string text;
  PKV_RETURN_IF_ERROR(read_value(value, name, text));
  const std::string upper = absl::AsciiStrToUpper(text);
  pb::CacheReportDetail detail = pb::CACHE_REPORT_DETAIL_UNSPECIFIED;
  if (!pb::CacheReportDetail_Parse(upper, &detail) &&
      !pb::CacheReportDetail_Parse(absl::StrCat("CACHE_REPORT_DETAIL_", upper), &detail)) {
    return bad_input(name, "must be NONE, SUMMARY, PER_LAYER or POSITIONS");
  }
  request.message.set_cache_report(detail);
  return absl::OkStatus();
}

const std::array kCommon = std::to_array<OpenAiField>({
    {"model", [](const Json& value, const std::string& name,
                 OpenAiRequest& request) { return read_value(value, name, *request.message.mutable_model()); }},
    {"stream", [](const Json& value, const std::string& name,
                  OpenAiRequest& request) { return read_value(value, name, request.answer.stream); }},
    {"stream_options", read_stream_options},
    {"temperature", set_by<&pb::SamplingParams::set_temperature>},
    {"top_p", set_by<&pb::SamplingParams::set_top_p>},
    {"top_k", set_by<&pb::SamplingParams::set_top_k>},
    {"min_p", set_by<&pb::SamplingParams::set_min_p>},
    {"repetition_penalty", set_by<&pb::SamplingParams::set_repetition_penalty>},
    {"frequency_penalty", set_by<&pb::SamplingParams::set_frequency_penalty>},
    {"presence_penalty", set_by<&pb::SamplingParams::set_presence_penalty>},
    {"logit_bias", read_bias},
    {"seed", read_seed},
    {"n", set_by<&pb::SamplingParams::set_n>},
    {"max_tokens", read_max_tokens},
    {"max_completion_tokens", read_max_tokens},  // the newer name
    {"min_tokens", set_by<&pb::SamplingParams::set_min_tokens>},
    {"stop", read_stop},
    {"stop_token_ids", read_stop_ids},
    {"ignore_eos", set_by<&pb::SamplingParams::set_ignore_eos>},
    {"priority", set_by<&pb::GenerateRequest::set_priority>},
    {"truncate_prompt_tokens", set_by<&pb::GenerateRequest::set_truncate_prompt_tokens>},
    {"stream_interval_tokens", set_by<&pb::OutputOptions::set_stream_interval_tokens>},
    {"cache_policy", read_policy},
    {"cache_report", read_report},
});

constexpr std::array<std::string_view, 9> kPassedOver = {"user",
                                                         "metadata",
                                                         "store",
                                                         "service_tier",
                                                         "safety_identifier",
                                                         "prompt_cache_key",
                                                         "prompt_cache_retention",
                                                         "parallel_tool_calls",
                                                         "prediction"};

struct RefusedField {
  std::string_view name;
  bool (*asks_for_nothing)(const Json& value);
  std::string_view way_out;
};
bool is_empty_list(const Json& value) { return value.is_array() && value.empty(); }
bool is_none(const Json& value) { return value == "none"; }
bool never(const Json&) { return false; }

const std::array kRefused = std::to_array<RefusedField>({
    {"tools", is_empty_list, "tools are not called here; describe them in a message"},
    {"functions", is_empty_list, "functions are not called here; describe them in a message"},
    {"tool_choice", [](const Json& value) { return value == "none" || value == "auto"; }, "there are no tools here"},
    {"function_call", is_none, "there are no functions here"},
    {"response_format", [](const Json& value) { return value.is_object() && value.value("type", Json()) == "text"; },
     "answers are text that nothing constrains; ask for the format in a message"},
    {"best_of", [](const Json& value) { return value == 1; }, "must be 1: send the request again for another answer"},
    {"suffix", [](const Json& value) { return value == ""; }, "text is only continued, not filled in"},
    {"modalities", [](const Json& value) { return value == Json::array({"text"}); }, "only text is answered"},
    {"audio", never, "only text is answered"},
    {"reasoning_effort", is_none, "there is no effort to choose"},
    {"verbosity", [](const Json& value) { return value == "medium"; },
     "ask for the length in a message, or set max_tokens"},
    {"web_search_options", never, "nothing is searched"},
});

}  // namespace

std::span<const OpenAiField> common_fields() { return kCommon; }

bool is_passed_over(std::string_view name) { return std::ranges::find(kPassedOver, name) != kPassedOver.end(); }

absl::Status unknown_field(const std::string& parent, const std::string& name) {
  const std::string quoted = shown(name);
  const std::string description =
      absl::StrCat(quoted, " is no field that is known here; docs/http.md lists those that are");
  return with_param(make_error({.reason = kNotImplemented, .field = parent, .description = description}),
                    absl::StrCat(parent, parent.empty() ? "" : ".", quoted.substr(1, quoted.size() - 2)));
}

absl::Status refuse_field(const std::string& name, const Json& value) {
  const auto* field = std::ranges::find(kRefused, name, &RefusedField::name);
  if (field == kRefused.end()) return unknown_field("", name);
  return field->asks_for_nothing(value) ? absl::OkStatus() : not_built(name, std::string(field->way_out));
}

absl::Status read_value(const Json& value, const std::string& name, bool& out) {
  if (!value.is_boolean()) return bad_input(name, "must be true or false");
  out = value.get<bool>();
  return absl::OkStatus();
}

absl::Status read_value(const Json& value, const std::string& name, std::string& out) {
  if (!value.is_string()) return bad_input(name, "must be a text");
  out = value.get<std::string>();
  return absl::OkStatus();
}

absl::Status read_value(const Json& value, const std::string& name, float& out) {
  if (!value.is_number()) return bad_input(name, "must be a number");
  out = static_cast<float>(value.get<double>());
  return absl::OkStatus();
}

absl::Status read_value(const Json& value, const std::string& name, uint32_t& out) {
  constexpr uint32_t kMax = std::numeric_limits<uint32_t>::max();
  if (!value.is_number_unsigned() || value.get<uint64_t>() > kMax) {
    return bad_input(name, absl::StrCat("must be a whole number from 0 to ", kMax));
  }
  out = static_cast<uint32_t>(value.get<uint64_t>());
  return absl::OkStatus();
}

absl::Status read_value(const Json& value, const std::string& name, int32_t& out) {
  using Limits = std::numeric_limits<int32_t>;
  const bool fits = value.is_number_integer() && value.get<int64_t>() >= Limits::min() &&
                    value.get<int64_t>() <= Limits::max() &&
                    (!value.is_number_unsigned() || value.get<uint64_t>() <= Limits::max());
  if (!fits) return bad_input(name, "must be a whole number of 32 bits");
  out = value.get<int32_t>();
  return absl::OkStatus();
}

}  // namespace pkv
