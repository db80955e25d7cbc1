// Writes the reply as compact JSON into the page.
#include "client/inspect_page.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/policy_options.h"
#include "client/report_table.h"
#include "client/utf8.h"

namespace pkv::client {
namespace {

constexpr absl::string_view kPlaceholder = "@DATA@";
constexpr char kReplacement[] = "\\ufffd";

bool is_line_separator(absl::string_view character) {
  return character == "\xE2\x80\xA8" || character == "\xE2\x80\xA9";
}

std::string recall_fields(const v1::Recall& recall) {
  return absl::StrFormat(",\"recall\":%.6f,\"recallMin\":%.6f", recall.mean(), recall.min());
}

std::string layer_json(const v1::LayerCache& layer) {
  std::string json = absl::StrFormat("{\"layer\":%u,\"budget\":%u,\"min\":%u,\"mean\":%.2f,\"max\":%u", layer.layer(),
                                     layer.budget_tokens(), layer.kept_min(), layer.kept_mean(), layer.kept_max());
  if (layer.has_recall()) absl::StrAppend(&json, recall_fields(layer.recall()));
  absl::StrAppend(&json, ",\"heads\":[");
  const char* separator = "";
  for (const v1::KeptPositions& head : layer.heads()) {
    absl::StrAppend(&json, separator, "{\"head\":", head.kv_head(), ",\"runs\":[",
                    absl::StrJoin(run_lengths(head.positions()), ","), "]");
    if (head.final_positions_size() > 0) {
      absl::StrAppend(&json, ",\"final\":[", absl::StrJoin(run_lengths(head.final_positions()), ","), "]");
    }
    json += '}';
    separator = ",";
  }
  return absl::StrCat(json, "]}");
}

// How many of the choice's log-probabilities belong to a repeated prompt.
int echoed_tokens(const v1::GenerateResponse& reply) {
  if (reply.choices_size() == 0) return 0;
  const uint32_t prompt = reply.usage().prompt_tokens();
  const bool echoed = reply.choices(0).logprobs_size() > 0 && static_cast<uint32_t>(reply.choices(0).logprobs_size()) ==
                                                                  prompt + reply.usage().completion_tokens();
  return echoed ? static_cast<int>(prompt) : 0;
}

std::string tokens_json(const v1::GenerateResponse& reply) {
  const int count = echoed_tokens(reply);
  if (count == 0) return "";
  std::string json = ",\"tokens\":[";
  for (int i = 0; i < count; ++i)
    absl::StrAppend(&json, i ? "," : "", json_string(reply.choices(0).logprobs(i).token()));
  return json + "]";
}

}  // namespace

bool has_positions(const v1::GenerateResponse& reply) {
  for (const v1::LayerCache& layer : reply.cache().layers()) {
    if (layer.heads_size() > 0) return true;
  }
  return false;
}

std::string answer_text(const v1::GenerateResponse& reply) {
  if (reply.choices_size() == 0) return "";
  const v1::Choice& choice = reply.choices(0);
  std::string prompt;
  for (int i = 0; i < echoed_tokens(reply); ++i) prompt += choice.logprobs(i).token();
  return choice.text().compare(0, prompt.size(), prompt) == 0 ? choice.text().substr(prompt.size()) : choice.text();
}

std::string json_string(const std::string& text) {
  std::string json = "\"";
  for (absl::string_view rest = text; !rest.empty();) {
    const size_t length = utf8_character_bytes(rest);
    const absl::string_view character = rest.substr(0, length);
    const char c = rest[0];
    rest.remove_prefix(length ? length : 1);
    if (length == 0) {
      json += kReplacement;
    } else if (is_line_separator(character)) {
      absl::StrAppend(&json, character.back() == '\xA8' ? "\\u2028" : "\\u2029");
    } else if (length == 1 &&
               (static_cast<unsigned char>(c) < 0x20 || c == '<' || c == '>' || c == '&' || c == '\'' || c == 0x7F)) {
      absl::StrAppendFormat(&json, "\\u%04x", static_cast<unsigned>(c));
    } else if (c == '"' || c == '\\') {
      json += '\\';
      json += c;
    } else {
      absl::StrAppend(&json, character);
    }
  }
  return json + "\"";
}

std::vector<uint32_t> run_lengths(const google::protobuf::RepeatedField<uint32_t>& positions) {
  std::vector<uint32_t> runs;
  uint32_t next = 0;  // one past the last position
  for (uint32_t position : positions) {
    if (position < next) continue;
    if (runs.empty() || position != next) {
      runs.push_back(position - next);
      runs.push_back(0);
    }
    ++runs.back();
    next = position + 1;
  }
  return runs;
}

std::string inspect_data(const InspectInput& input) {
  const v1::GenerateResponse& reply = input.reply;
  const v1::CacheReport& cache = reply.cache();
  std::string json = absl::StrCat(
      "{\"title\":", json_string(input.title), ",\"policy\":", json_string(describe_policy(cache.effective_policy())),
      ",\"model\":", json_string(reply.model()), ",\"question\":", json_string(input.question),
      ",\"answer\":", json_string(answer_text(reply)), ",\"promptTokens\":", reply.usage().prompt_tokens(),
      ",\"totalTokens\":", std::max(cache.logical_tokens(), reply.usage().prompt_tokens()),
      ",\"notCompressed\":", json_string(cache.compressed() ? "" : cache.not_compressed_reason()), ",\"figures\":[");
  const char* separator = "";
  for (const auto& [label, text] : report_figures({input.title, cache, reply.usage(), reply.timings()})) {
    absl::StrAppend(&json, separator, "[", json_string(label), ",", json_string(text), "]");
    separator = ",";
  }
  absl::StrAppend(&json, "],\"layers\":[",
                  absl::StrJoin(cache.layers(), ",", [](std::string* out, const v1::LayerCache& layer) {
                    absl::StrAppend(out, layer_json(layer));
                  }));
  return absl::StrCat(json, "]", tokens_json(reply), "}");
}

std::string inspect_page(const InspectInput& input) {
  const absl::string_view page = inspect_page_template();
  const size_t at = page.find(kPlaceholder);
  return absl::StrCat(page.substr(0, at), inspect_data(input), page.substr(at + kPlaceholder.size()));
}

}  // namespace pkv::client
