#include "server/rpc/errors.h"

#include <array>
#include <optional>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "pyramidkv/v1/error_details.pb.h"
#include "server/rpc/times.h"
#include "server/status/field_error.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

constexpr char kDomain[] = "pyramidkv";
constexpr std::string_view kTypeUrl = "type.googleapis.com/";  // of payloads that go to the caller as they are
constexpr char kErrorInfoUrl[] = "type.googleapis.com/google.rpc.ErrorInfo";
constexpr char kBadRequestUrl[] = "type.googleapis.com/google.rpc.BadRequest";
constexpr char kRetryInfoUrl[] = "type.googleapis.com/google.rpc.RetryInfo";

constexpr std::array kReasons = {kBadInput,         kBadSampling,    kBadCachePolicy, kContextTooLong, kCacheNeverFits,
                                 kRecallNotReached, kNotImplemented, kNotFound,       kNoChatTemplate, kQueueFull,
                                 kModelLoading,     kServerDraining, kEngineFailed};

constexpr std::array<std::string_view, 17> kCodeNames = {
    "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED"};

void set_error_info(absl::Status& status, std::string_view reason, const std::map<std::string, std::string>& metadata) {
  pb::ErrorInfo info;
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

}  // namespace

std::span<const std::string_view> rejection_reasons() { return kReasons; }
std::span<const std::string_view> status_code_names() { return kCodeNames; }

std::string_view status_code_name(grpc::StatusCode code) {
  const auto index = static_cast<size_t>(code);
  return index < kCodeNames.size() ? kCodeNames[index] : "UNKNOWN";
}

absl::Status make_error(const ErrorDetail& detail) {
  absl::Status status = detail.field.empty() ? absl::Status(detail.code, detail.description)
                                             : field_error(detail.field, detail.description, detail.code);
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
  return make_error({.code = absl::StatusCode::kUnimplemented,
                     .reason = kNotImplemented,
                     .field = field,
                     .description = description});
}

absl::Status not_found(const std::string& field, const std::string& description) {
  return make_error(
      {.code = absl::StatusCode::kNotFound, .reason = kNotFound, .field = field, .description = description});
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
  pb::ErrorInfo info;
  return read_payload(status, kErrorInfoUrl, info) ? info.reason() : std::string();
}

absl::Duration error_retry_delay(const absl::Status& status) {
  pb::RetryInfo retry;
  return read_payload(status, kRetryInfoUrl, retry) ? to_absl(retry.retry_delay()) : absl::ZeroDuration();
}

grpc::Status to_grpc_status(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const auto code = static_cast<grpc::StatusCode>(status.code());
  const std::string message(status.message());
  pb::ErrorStatus details;
  details.set_code(static_cast<int32_t>(code));
  details.set_message(message);
  const auto add_detail = [&](std::string url, std::string value) {
    google::protobuf::Any& any = *details.add_details();
    any.set_type_url(std::move(url));
    any.set_value(std::move(value));
  };
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    std::string name(url);
    if (name.starts_with(kTypeUrl)) add_detail(std::move(name), std::string(payload));
  });
  if (const std::optional<FieldError> named = field_error_of(status)) {
    pb::BadRequest request;
    pb::BadRequest::FieldViolation& violation = *request.add_field_violations();
    violation.set_field(named->field);
    violation.set_description(named->description);
    add_detail(kBadRequestUrl, request.SerializeAsString());
  }
  if (details.details().empty()) return grpc::Status(code, message);
  return grpc::Status(code, message, details.SerializeAsString());
}

}  // namespace pkv
