// What a caller gets when something is wrong: a code, a sentence that begins with the offending field, and
// machine-readable details (google.rpc.ErrorInfo, BadRequest, RetryInfo). Inside the server they travel as payloads of
// an absl::Status, the field as a FieldError.
#pragma once

#include <map>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace pkv {

// ErrorInfo.reason.
inline constexpr std::string_view kBadInput = "BAD_INPUT";
inline constexpr std::string_view kBadSampling = "BAD_SAMPLING";
inline constexpr std::string_view kBadCachePolicy = "BAD_CACHE_POLICY";
inline constexpr std::string_view kContextTooLong = "CONTEXT_TOO_LONG";
inline constexpr std::string_view kReplyTooLarge = "REPLY_TOO_LARGE";
inline constexpr std::string_view kCacheNeverFits = "CACHE_NEVER_FITS";
inline constexpr std::string_view kDeadlineTooShort = "DEADLINE_TOO_SHORT";
inline constexpr std::string_view kRecallNotReached = "RECALL_NOT_REACHED";
inline constexpr std::string_view kNotImplemented = "UNIMPLEMENTED";
inline constexpr std::string_view kPolicyDisabled = "POLICY_DISABLED";
inline constexpr std::string_view kNotFound = "NOT_FOUND";
inline constexpr std::string_view kNoChatTemplate = "NO_CHAT_TEMPLATE";  // or none that can be used
inline constexpr std::string_view kChatTemplateFailed = "CHAT_TEMPLATE_FAILED";
inline constexpr std::string_view kUnauthenticated = "UNAUTHENTICATED";
inline constexpr std::string_view kPermissionDenied = "PERMISSION_DENIED";
inline constexpr std::string_view kKeyLimit = "KEY_LIMIT";
inline constexpr std::string_view kQueueFull = "QUEUE_FULL";
inline constexpr std::string_view kSlowReader = "SLOW_READER";     // of calls that were running
inline constexpr std::string_view kOutOfMemory = "OUT_OF_MEMORY";  // of calls that were running, too
inline constexpr std::string_view kModelLoading = "LOADING";
inline constexpr std::string_view kServerDraining = "DRAINING";
inline constexpr std::string_view kEngineFailed = "ENGINE_FAILED";  // of calls that were running, too
inline constexpr std::string_view kNotANumber = "NOT_A_NUMBER";     // of calls that were running

std::vector<std::string_view> rejection_reasons();  // all of the above: those of generation calls
inline constexpr std::string_view kTooManyWatchers = "TOO_MANY_WATCHERS";  // of WatchStats
std::span<const std::string_view> status_code_names();  // OK, CANCELLED, ... in the order of their numbers
std::string_view status_code_name(absl::StatusCode code);

struct ErrorDetail {
  std::optional<absl::StatusCode> code;  // none: the one that goes with the reason
  std::string_view reason;
  std::string field;        // path of the offending field; empty: no single one
  std::string description;  // without the field
  std::map<std::string, std::string> metadata;
  absl::Duration retry_delay = absl::ZeroDuration();  // zero: none is named
};
absl::Status make_error(const ErrorDetail& detail);

// INVALID_ARGUMENT about one field.
absl::Status bad_input(const std::string& field, const std::string& description);
absl::Status bad_sampling(const std::string& field, const std::string& description);
absl::Status bad_cache_policy(const std::string& field, const std::string& description);
// UNIMPLEMENTED: what is asked for by `field` is part of the contract, but not of this build.
absl::Status not_built(const std::string& field, const std::string& description = "not built yet");
// OUT_OF_MEMORY: the process has none for what was asked, though its limits allow it; `what` says for what, where that
// is known. std::bad_alloc: nor for this.
absl::Status out_of_memory(const std::string& what = "");
// How long to wait for memory where there is none even to say so.
inline constexpr absl::Duration kMemoryPause = absl::Milliseconds(100);
// What `work` gives, as soon as there is memory for it.
template <typename Work>
auto once_there_is_memory(const Work& work) {
  while (true) {
    try {
      return work();
    } catch (const std::bad_alloc&) {
      absl::SleepFor(kMemoryPause);
    }
  }
}
// What `work` for one caller comes to. An exception costs nobody else the server: it is OUT_OF_MEMORY, or INTERNAL for
// a fault of the server's, as soon as there is memory for that.
absl::Status outcome_of(absl::FunctionRef<absl::Status()> work);
absl::Status not_found(const std::string& field, const std::string& description);
// DRAINING, of streams that only the end of the server ends.
absl::Status server_stopping();

// What a caller wrote, in quotes and short enough to be part of an error: metadata beyond 8 KB reaches nobody.
std::string shown(std::string_view text);

// The same error with a reason, and its field, where it names one (field_error_of()), below `field_prefix`.
absl::Status with_reason(const absl::Status& status, std::string_view reason, const std::string& field_prefix = "");
// The same error about the same field of a message that is itself the field `to` of another: where the field's path
// begins with `from`, that becomes `to`.
absl::Status with_field_moved(const absl::Status& status, std::string_view from, std::string_view to);

std::string error_reason(const absl::Status& status);  // empty: none
std::map<std::string, std::string> error_metadata(const absl::Status& status);
// The delay its RetryInfo names, else zero.
absl::Duration error_retry_delay(const absl::Status& status);
// 400 and above: what HTTP has for the error.
int http_status(const absl::Status& status);

}  // namespace pkv
