#include "server/api/errors.h"

#include <google/protobuf/arena.h>

#include <algorithm>
#include <array>
#include <exception>
#include <new>
#include <optional>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/types/optional.h"
#include "kernels/check.h"
#include "pyramidkv/v1/error_details.pb.h"
#include "server/api/times.h"
#include "server/status/field_error.h"
#include "server/telemetry/escape.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

constexpr char kDomain[] = "pyramidkv";
constexpr char kErrorInfoUrl[] = "type.googleapis.com/google.rpc.ErrorInfo";
constexpr char kRetryInfoUrl[] = "type.googleapis.com/google.rpc.RetryInfo";

// How a reason is told over gRPC and over HTTP. HTTP clients send a request again after 409, 429 and 5xx, so what would
// be refused again is 400 or 404.
struct ErrorKind {
  std::string_view reason;
  absl::StatusCode code;
  int http_status;
};
constexpr std::array kKinds = {
    ErrorKind{kBadInput, absl::StatusCode::kInvalidArgument, 400},
    ErrorKind{kBadSampling, absl::StatusCode::kInvalidArgument, 400},
    ErrorKind{kBadCachePolicy, absl::StatusCode::kInvalidArgument, 400},
    ErrorKind{kContextTooLong, absl::StatusCode::kInvalidArgument, 400},
    ErrorKind{kReplyTooLarge, absl::StatusCode::kInvalidArgument, 400},
    ErrorKind{kCacheNeverFits, absl::StatusCode::kFailedPrecondition, 400},
    ErrorKind{kDeadlineTooShort, absl::StatusCode::kDeadlineExceeded, 400},
    ErrorKind{kRecallNotReached, absl::StatusCode::kFailedPrecondition, 400},
    ErrorKind{kNotImplemented, absl::StatusCode::kUnimplemented, 400},
    ErrorKind{kPolicyDisabled, absl::StatusCode::kFailedPrecondition, 400},
    ErrorKind{kNotFound, absl::StatusCode::kNotFound, 404},
    ErrorKind{kNoChatTemplate, absl::StatusCode::kFailedPrecondition, 400},
    ErrorKind{kChatTemplateFailed, absl::StatusCode::kFailedPrecondition, 400},
    ErrorKind{kUnauthenticated, absl::StatusCode::kUnauthenticated, 401},
    ErrorKind{kPermissionDenied, absl::StatusCode::kPermissionDenied, 403},
    ErrorKind{kKeyLimit, absl::StatusCode::kResourceExhausted, 429},
    ErrorKind{kQueueFull, absl::StatusCode::kResourceExhausted, 429},
    ErrorKind{kSlowReader, absl::StatusCode::kResourceExhausted, 429},
    ErrorKind{kOutOfMemory, absl::StatusCode::kResourceExhausted, 503},
    ErrorKind{kModelLoading, absl::StatusCode::kUnavailable, 503},
    ErrorKind{kServerDraining, absl::StatusCode::kUnavailable, 503},
    ErrorKind{kEngineFailed, absl::StatusCode::kInternal, 500},
    ErrorKind{kNotANumber, absl::StatusCode::kInternal, 500},
    ErrorKind{kTooManyWatchers, absl::StatusCode::kResourceExhausted, 429},
};

const ErrorKind* find_kind(std::string_view reason) {
  const auto* kind = std::ranges::find(kKinds, reason, &ErrorKind::reason);
  return kind == kKinds.end() ? nullptr : kind;
}

constexpr std::array<std::string_view, 17> kCodeNames = {
    "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED"};

// An ErrorInfo is made on an arena, which never takes its map apart: one that finds no memory to grow cannot be.
pb::ErrorInfo& make_error_info(google::protobuf::Arena& arena) {
  return *google::protobuf::Arena::CreateMessage<pb::ErrorInfo>(&arena);
}

void set_error_info(absl::Status& status, std::string_view reason, const std::map<std::string, std::string>& metadata) {
  google::protobuf::Arena arena;
  pb::ErrorInfo& info = make_error_info(arena);
  info.set_reason(std::string(reason));
  info.set_domain(kDomain);
  for (const auto& [key, value] : metadata) (*info.mutable_metadata())[key] = value;
  status.SetPayload(kErrorInfoUrl, absl::Cord(info.SerializeAsString()));
}

template <typename Message>
bool read_payload(const absl::Status& status, const char* url, Message& message) {
  const absl::optional<absl::Cord> payload = status.GetPayload(url);
  return payload.has_value() && message.ParseFromString(std::string(*payload));
}

absl::Status error_of(const std::exception_ptr& thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const std::bad_alloc&) {
    return out_of_memory();
  } catch (const std::exception& exception) {
    return absl::InternalError(absl::StrCat("a fault of the server, met with this request: ", exception.what()));
  }
}

}  // namespace

std::vector<std::string_view> rejection_reasons() {
  std::vector<std::string_view> reasons;
  for (const ErrorKind& kind : kKinds) {
    if (kind.reason != kTooManyWatchers) reasons.push_back(kind.reason);
  }
  return reasons;
}

std::span<const std::string_view> status_code_names() { return kCodeNames; }

std::string_view status_code_name(absl::StatusCode code) {
  const auto index = static_cast<size_t>(code);
  return index < kCodeNames.size() ? kCodeNames[index] : "UNKNOWN";
}

absl::Status make_error(const ErrorDetail& detail) {
  const ErrorKind* kind = find_kind(detail.reason);
  PKV_CHECK(kind != nullptr, "an error with a reason that is in no table");
  const absl::StatusCode code = detail.code.value_or(kind->code);
  absl::Status status = detail.field.empty() ? absl::Status(code, detail.description)
                                             : field_error(detail.field, detail.description, code);
  set_error_info(status, detail.reason, detail.metadata);
  if (detail.retry_delay > absl::ZeroDuration()) {
    pb::RetryInfo retry;
    set_duration(detail.retry_delay, *retry.mutable_retry_delay());
    status.SetPayload(kRetryInfoUrl, absl::Cord(retry.SerializeAsString()));
  }
  return status;
}

absl::Status bad_input(const std::string& field, const std::string& description) {
  return make_error({.reason = kBadInput, .field = field, .description = description});
}

absl::Status bad_sampling(const std::string& field, const std::string& description) {
  return make_error({.reason = kBadSampling, .field = field, .description = description});
}

absl::Status bad_cache_policy(const std::string& field, const std::string& description) {
  return make_error({.reason = kBadCachePolicy, .field = field, .description = description});
}

absl::Status not_built(const std::string& field, const std::string& description) {
  return make_error({.reason = kNotImplemented, .field = field, .description = description});
}

absl::Status out_of_memory(const std::string& what) {
  return make_error(
      {.reason = kOutOfMemory,
       .description = what.empty() ? "there is not enough memory for this request now; try again later" : what,
       .retry_delay = absl::Seconds(1)});
}

absl::Status outcome_of(absl::FunctionRef<absl::Status()> work) {
  std::exception_ptr thrown;
  try {
    return work();
  } catch (const std::exception&) {
    thrown = std::current_exception();
  }
  return once_there_is_memory([&thrown] { return error_of(thrown); });
}

absl::Status not_found(const std::string& field, const std::string& description) {
  return make_error({.reason = kNotFound, .field = field, .description = description});
}

absl::Status server_stopping() {
  return make_error(
      {.reason = kServerDraining, .description = "the server is stopping", .retry_delay = absl::Seconds(10)});
}

std::string shown(std::string_view text) {
  constexpr size_t kMaxBytes = 128;
  const std::string begin = escape_controls(text.substr(0, kMaxBytes));
  return absl::StrCat("\"", begin, text.size() > kMaxBytes ? "...\"" : "\"");
}

absl::Status with_reason(const absl::Status& status, std::string_view reason, const std::string& field_prefix) {
  const std::optional<FieldError> named = field_error_of(status);
  return make_error({.code = status.code(),
                     .reason = reason,
                     .field = named ? field_prefix + named->field : "",
                     .description = named ? named->description : std::string(status.message())});
}

absl::Status with_field_moved(const absl::Status& status, std::string_view from, std::string_view to) {
  const std::optional<FieldError> named = field_error_of(status);
  if (!named || !named->field.starts_with(from)) return status;
  return with_field(status, std::string(to) + named->field.substr(from.size()));
}

std::string error_reason(const absl::Status& status) {
  google::protobuf::Arena arena;
  pb::ErrorInfo& info = make_error_info(arena);
  return read_payload(status, kErrorInfoUrl, info) ? info.reason() : std::string();
}

std::map<std::string, std::string> error_metadata(const absl::Status& status) {
  google::protobuf::Arena arena;
  pb::ErrorInfo& info = make_error_info(arena);
  if (!read_payload(status, kErrorInfoUrl, info)) return {};
  return {info.metadata().begin(), info.metadata().end()};
}

absl::Duration error_retry_delay(const absl::Status& status) {
  pb::RetryInfo retry;
  return read_payload(status, kRetryInfoUrl, retry) ? to_absl(retry.retry_delay()) : absl::ZeroDuration();
}

int http_status(const absl::Status& status) {
  const ErrorKind* kind = find_kind(error_reason(status));
  if (kind != nullptr && kind->code == status.code()) return kind->http_status;
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnimplemented:
      return 400;
    case absl::StatusCode::kUnauthenticated:
      return 401;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kUnavailable:
      return 503;
    default:
      return 500;
  }
}

}  // namespace pkv
