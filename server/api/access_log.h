// One line of the log for every call about text, at info: who asked for what, what it cost and how it ended.
// No text of prompts or answers.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/api/authenticator.h"
#include "server/api/call_registry.h"
#include "server/telemetry/log.h"
#include "server/telemetry/trace_context.h"

namespace pkv {

// What is known of a call as soon as it arrives, and the id its request names.
struct CallInfo {
  std::string_view method;
  std::string peer;
  absl::Time arrived;
  std::optional<absl::Time> deadline;  // none: the caller waits as long as it takes
  std::optional<TraceContext> trace;
  Credentials credentials;
  std::string request_id;
  std::shared_ptr<KeyUse> key;                  // null: the server has no keys, or the caller's is none of them
  std::shared_ptr<CallRegistry::Entry> listed;  // from its admission on
};

// What became of it. What is not known stays empty and is not logged.
struct CallOutcome {
  absl::Status status;
  std::string_view code;    // name of the status the call was finished with
  std::string_view policy;  // empty: the method has none
  std::optional<size_t> prompt_tokens;
  std::optional<size_t> generated_tokens;
  std::optional<double> kept_share;  // of a full cache, at the end
  std::optional<double> recall;
  std::optional<absl::Time> first_token;
};

// Never on the engine thread: writing may block. Where there is no memory for the line, there is none.
void log_access(const Log& log, const CallInfo& call, const CallOutcome& outcome);

}  // namespace pkv
