#include "client/error_text.h"

#include <algorithm>
#include <array>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "client/sizes.h"

namespace pkv::client {
namespace {

struct FieldFlag {
  const char* field;
  const char* flag;
};
// Fields whose flag is not called as they are.
constexpr std::array<FieldFlag, 13> kFlags = {{
    {"prompt", "-p, -f"},
    {"chat.messages", "-p, -f"},
    {"sampling.stop_token_ids", "--stop-id"},
    {"output.return_token_ids", "--token-ids"},
    {"cache_report", "--report"},
    {"policies", "--policies"},
    {"cache_policy.preset", "--preset"},
    {"cache_policy.pins", "--pin"},
    {"cache_policy.pin_system_message", "--pin-system"},
    {"cache_policy.budget.interval_tokens", "--interval"},
    {"cache_policy.budget.max_bytes", "--max-bytes"},
    {"cache_policy.budget.allow_shortfall", "--allow-shortfall"},
    {"cache_policy.budget.scope", "--scope"},
}};

std::string dashed(const std::string& name) { return absl::StrCat("--", absl::StrReplaceAll(name, {{"_", "-"}})); }

uint64_t figure(const Error& error, const char* name) {
  const auto found = error.metadata.find(name);
  uint64_t value = 0;
  return found != error.metadata.end() && absl::SimpleAtoi(found->second, &value) ? value : 0;
}

std::string field_of(const Error& error) { return error.fields.empty() ? "" : error.fields.front().first; }

// A flag of the command line as the chat's command of the same meaning, where it has one.
std::string worded(const std::string& flag, const std::string& value, const ErrorContext& context) {
  const bool chat = context.surface == Surface::kChat && (flag == "--budget" || flag == "--policy");
  return absl::StrCat(chat ? "/" : "--", flag.substr(2), " ", value);
}

std::string for_too_little_cache(const Error& error, const ErrorContext& context) {
  const std::string field = field_of(error);
  const uint64_t bytes = figure(error, "smallest_budget_bytes");
  if (absl::EndsWith(field, "budget.max_bytes") && bytes) return worded("--max-bytes", size_word_above(bytes), context);
  if (absl::EndsWith(field, "budget.bytes") && bytes) return worded("--budget", size_word_above(bytes), context);
  if (const uint64_t workspace = figure(error, "workspace_bytes"); workspace > figure(error, "workspace_limit_bytes"))
    return "a shorter prompt; the server's runtime.workspace_bytes is the limit";
  if (const uint64_t tokens = figure(error, "largest_budget_tokens"))
    return worded("--budget", absl::StrCat(tokens), context);
  if (figure(error, "smallest_budget_tokens"))
    return context.surface == Surface::kChat ? "/forget, which drops the oldest exchange, or /reset"
                                             : "a shorter prompt";
  return context.surface == Surface::kChat ? "/policy pyramidkv 128, which keeps less, then /retry"
                                           : "--policy pyramidkv --budget 128, which keeps less";
}

std::string for_too_long(const Error& error, const ErrorContext& context) {
  const uint64_t max = figure(error, "max"), got = figure(error, "got");
  if (max == 0 || got <= max) return "";
  if (context.surface == Surface::kChat)
    return "/forget, which drops the oldest exchange, then /retry; or /reset, which begins anew (/save FILE keeps it)";
  const bool answer = field_of(error) == "sampling.max_tokens" || field_of(error) == "max_tokens";
  const uint64_t asked = context.max_tokens, over = got - max;
  if (answer && asked > over) return absl::StrCat("--max-tokens ", asked - over);
  if (field_of(error) == "prompt_tokens") return absl::StrCat("--prompt-tokens ", max > asked ? max - asked : 1);
  const uint64_t answer_room = asked < max ? asked : max / 2;
  return absl::StrCat("--truncate-prompt-tokens ", max - answer_room,
                      asked < max ? "" : absl::StrCat(" --max-tokens ", answer_room), ", which keeps the prompt's end");
}

std::string for_bad_policy(const Error& error, const ErrorContext& context) {
  const std::string field = field_of(error);
  if (absl::StrContains(error.message, "no budget") || absl::StrContains(error.message, "keeps everything"))
    return context.surface == Surface::kChat ? "/policy full without a budget, or /policy pyramidkv 128"
                                             : "without --budget, or with --policy pyramidkv";
  if (absl::EndsWith(field, "preset")) return "'pyramidkv policies', which lists policies and presets";
  return "";
}

}  // namespace

std::string flag_of_field(const std::string& field) {
  const std::string name = field.substr(0, field.find('['));
  for (const FieldFlag& row : kFlags) {
    if (name == row.field) return row.flag;
  }
  if (absl::StartsWith(name, "cache_policy.budget")) return "--budget";
  if (name == "cache_policy.kv_dtype") return "--kv-dtype";
  if (absl::StartsWith(name, "cache_policy.prefill")) return dashed(name.substr(name.rfind('.') + 1));
  if (name == "cache_policy") return "--policy";
  const size_t dot = name.rfind('.');
  if (absl::StartsWith(name, "cache_policy.")) {
    const bool parameter = dot != std::string("cache_policy").size();
    return parameter ? absl::StrCat("--param ", name.substr(dot + 1), "=...") : "--policy";
  }
  for (const char* parent : {"sampling.", "output."}) {
    if (absl::StartsWith(name, parent)) return dashed(name.substr(dot + 1));
  }
  for (const char* own : {"model", "request_id", "priority", "truncate_prompt_tokens", "prompt_tokens", "max_tokens"}) {
    if (name == own) return dashed(name);
  }
  return "";
}

std::string way_out(const Error& error, const ErrorContext& context) {
  std::string fix;
  if (error.reason == "CACHE_NEVER_FITS") fix = for_too_little_cache(error, context);
  if (error.reason == "CONTEXT_TOO_LONG") fix = for_too_long(error, context);
  if (error.reason == "BAD_CACHE_POLICY") fix = for_bad_policy(error, context);
  if (error.reason == "RECALL_NOT_REACHED")
    fix = "--allow-shortfall, which keeps less attention, or a larger --max-bytes";
  if (error.reason == "NO_CHAT_TEMPLATE" || error.reason == "CHAT_TEMPLATE_FAILED")
    fix = "--raw, which sends the prompt as it is";
  if (error.reason == "NOT_FOUND" && field_of(error) == "model") fix = "'pyramidkv models', which lists what is served";
  if (error.reason == "POLICY_DISABLED") fix = "'pyramidkv policies', which says what is switched off";
  if (error.reason == "UNAUTHENTICATED") fix = "--api-key-file FILE, or the variable PYRAMIDKV_API_KEY";
  if (error.reason == "PERMISSION_DENIED")
    fix = field_of(error) == "priority" ? "a larger --priority; the server's operator says what a key may have"
                                        : "a key with that scope; the server's operator gives scopes";
  if (error.reason == "KEY_LIMIT") fix = "again when one of the key's requests has ended";
  if (error.reason == "QUEUE_FULL") fix = "again in a moment; 'pyramidkv stats' shows the queue";
  if (error.reason == "OUT_OF_MEMORY") fix = "again in a moment, or with a shorter prompt or smaller --max-tokens";
  if (error.reason == "LOADING") fix = "again in a moment, when the model is loaded";
  if (error.reason == "DRAINING" || error.reason == "ENGINE_FAILED")
    fix = "again when the server has been started anew, or --server with another";
  if (error.reason == "DEADLINE_TOO_SHORT") {
    fix = "a longer --deadline, or a shorter prompt (--truncate-prompt-tokens)";
  } else if (error.code == grpc::StatusCode::DEADLINE_EXCEEDED)
    fix = "a longer --deadline, or a smaller --max-tokens";
  return fix.empty() ? "" : absl::StrCat("Try ", fix);
}

std::string error_text(const Error& error, const ErrorContext& context) {
  std::string text = error.message.empty() ? absl::StrCat("gRPC status ", static_cast<int>(error.code)) : error.message;
  for (const auto& [field, description] : error.fields) {
    const std::string flag = flag_of_field(field);
    const std::string named = flag.empty() ? field : absl::StrCat(field, " (", flag, ")");
    if (absl::StartsWith(text, absl::StrCat(field, ": "))) {
      text.replace(0, field.size(), named);
    } else {
      absl::StrAppend(&text, "; ", named, ": ", description);
    }
  }
  if (!error.reason.empty()) absl::StrAppend(&text, " [", error.reason, "]");
  const std::string fix = way_out(error, context);
  return fix.empty() ? text : absl::StrCat(text, "\n", fix);
}

}  // namespace pkv::client
