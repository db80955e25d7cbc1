// Checks every field of every line; a trace is read whole before the first request.
#include "client/bench/trace.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/bench/json_reader.h"

namespace pkv::client {
namespace {

using google::protobuf::Value;

constexpr double kLatest = 1e6;  // seconds, 11 days
constexpr double kMostTokens = 1e9;

bool is_number(const Value& value, double least, double most) {
  return value.kind_case() == Value::kNumberValue && value.number_value() >= least && value.number_value() <= most;
}

std::string read_tokens(const std::string& key, const Value& value, std::optional<uint32_t>& tokens) {
  if (!is_number(value, 1, kMostTokens) || std::floor(value.number_value()) != value.number_value())
    return absl::StrCat("\"", key, "\" is not a whole number of tokens from 1");
  tokens = static_cast<uint32_t>(value.number_value());
  return "";
}

std::string read_policy(const Value& value, std::vector<BenchPolicy>& mix, TraceLine& line) {
  if (value.kind_case() != Value::kStringValue) return "\"policy\" is no string NAME[:BUDGET[:SCOPE[:FORMAT]]]";
  const std::string text(absl::StripAsciiWhitespace(value.string_value()));
  const auto same = std::find_if(mix.begin(), mix.end(), [&](const BenchPolicy& known) { return known.text == text; });
  line.policy = static_cast<size_t>(same - mix.begin());
  if (same != mix.end()) return "";
  std::vector<NamedPolicy> named;
  if (std::string error = parse_policies(text, {}, named); !error.empty())
    return absl::StrCat("\"policy\"", error.substr(error.find(':')));  // without the name of the option
  if (named.size() != 1) return "\"policy\" is one policy, not a list";
  if (mix.size() == kMostBenchPolicies) return absl::StrCat("more than ", kMostBenchPolicies, " different policies");
  mix.push_back({.text = text, .policy = std::move(named.front().policy)});
  return "";
}

std::string read_field(const std::string& key, const Value& value, std::vector<BenchPolicy>& mix, TraceLine& line) {
  if (key == "at") {
    if (!is_number(value, 0, kLatest)) return "\"at\" is not a number of seconds from 0 to 1000000";
    line.at = value.number_value();
    return "";
  }
  if (key == "prompt_tokens") return read_tokens(key, value, line.prompt_tokens);
  if (key == "max_tokens") return read_tokens(key, value, line.max_tokens);
  if (key == "policy") return read_policy(value, mix, line);
  if (key == "prompt") {
    if (value.kind_case() != Value::kStringValue || value.string_value().empty()) return "\"prompt\" is no text";
    line.prompt = value.string_value();
    return "";
  }
  return absl::StrCat("unknown key \"", key, "\"; known are at, prompt_tokens, prompt, max_tokens, policy");
}

std::string read_line(const std::string& text, std::vector<BenchPolicy>& mix, TraceLine& line) {
  google::protobuf::Struct object;
  if (std::string error = read_json_object(text, object); !error.empty())
    return absl::StrCat("no JSON object: ", error);
  if (!object.fields().contains("at")) return "no \"at\", the seconds from the beginning";
  if (object.fields().contains("prompt") && object.fields().contains("prompt_tokens"))
    return "\"prompt\" and \"prompt_tokens\" exclude each other";
  for (const auto& [key, value] : object.fields()) {
    if (std::string error = read_field(key, value, mix, line); !error.empty()) return error;
  }
  return "";
}

}  // namespace

std::string parse_trace(const std::string& text, std::vector<TraceLine>& lines, std::vector<BenchPolicy>& mix) {
  size_t number = 0;
  for (const absl::string_view words : absl::StrSplit(text, '\n')) {
    ++number;
    if (absl::StripAsciiWhitespace(words).empty()) continue;
    TraceLine line;
    if (std::string error = read_line(std::string(words), mix, line); !error.empty())
      return absl::StrCat("line ", number, ": ", error);
    lines.push_back(std::move(line));
  }
  if (lines.empty()) return "no request in it";
  std::stable_sort(lines.begin(), lines.end(), [](const TraceLine& a, const TraceLine& b) { return a.at < b.at; });
  return "";
}

}  // namespace pkv::client
