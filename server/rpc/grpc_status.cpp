#include "server/rpc/grpc_status.h"

#include <optional>
#include <string>
#include <utility>

#include "absl/strings/cord.h"
#include "pyramidkv/v1/error_details.pb.h"
#include "server/api/errors.h"
#include "server/status/field_error.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

constexpr std::string_view kTypeUrl = "type.googleapis.com/";  // of payloads that go to the caller as they are
constexpr char kBadRequestUrl[] = "type.googleapis.com/google.rpc.BadRequest";

}  // namespace

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

grpc::Status end_status(const absl::Status& status, grpc::CallbackServerContext& context) {
  grpc::Status told = to_grpc_status(status);
  if (const absl::Duration delay = error_retry_delay(status); delay > absl::ZeroDuration()) {
    context.AddTrailingMetadata("grpc-retry-pushback-ms", std::to_string(absl::ToInt64Milliseconds(delay)));
  }
  return told;
}

}  // namespace pkv
