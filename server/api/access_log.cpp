#include "server/api/access_log.h"

#include <new>
#include <vector>

#include "absl/time/clock.h"
#include "server/api/errors.h"
#include "server/status/field_error.h"

namespace pkv {
void log_access(const Log& log, const CallInfo& call, const CallOutcome& outcome) try {
  std::vector<LogField> fields;
  const auto add = [&fields](std::string_view name, const auto& value) {
    if (value) fields.push_back({name, *value});
  };
  if (!call.request_id.empty()) fields.push_back({"request_id", call.request_id});
  fields.push_back({"peer", call.peer});
  if (call.key != nullptr) fields.push_back({"key", call.key->name()});
  fields.push_back({"method", call.method});
  if (!outcome.policy.empty()) fields.push_back({"policy", outcome.policy});
  add("prompt_tokens", outcome.prompt_tokens);
  add("generated_tokens", outcome.generated_tokens);
  add("kept_share", outcome.kept_share);
  add("recall", outcome.recall);
  if (outcome.first_token) {
    fields.push_back({"first_token_seconds", absl::ToDoubleSeconds(*outcome.first_token - call.arrived)});
  }
  fields.push_back({"total_seconds", absl::ToDoubleSeconds(absl::Now() - call.arrived)});
  fields.push_back({"code", outcome.code});
  if (const std::string reason = error_reason(outcome.status); !reason.empty()) {
    fields.push_back({"reason", reason});
    const std::optional<FieldError> named = field_error_of(outcome.status);
    if (named) fields.push_back({"field", named->field});
  }
  if (call.trace) {
    fields.push_back({"trace_id", call.trace->trace_id});
    fields.push_back({"span_id", call.trace->span_id});
  }
  log.write(LogLevel::kInfo, "call", fields);
} catch (const std::bad_alloc&) {  // the call goes on without its line
}

}  // namespace pkv
