#include "server/http/openai_error.h"

#include <optional>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "server/api/errors.h"
#include "server/http/json_text.h"
#include "server/status/field_error.h"

namespace pkv {
namespace {

constexpr char kParamPayload[] = "pyramidkv/param";

const char* error_type(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    default:
      return status < 500 ? "invalid_request_error" : "server_error";
  }
}

Json param_of(const absl::Status& status) {
  if (const absl::optional<absl::Cord> param = status.GetPayload(kParamPayload)) return std::string(*param);
  const std::optional<FieldError> named = field_error_of(status);
  return named && !named->field.empty() ? Json(named->field) : Json();
}

Json error_json(const absl::Status& status) {
  const std::string reason = error_reason(status);
  Json error = {{"message", std::string(status.message())},
                {"type", error_type(http_status(status))},
                {"param", param_of(status)},
                {"code", reason.empty() ? Json(status_code_name(status.code())) : Json(reason)}};
  for (const auto& [name, value] : error_metadata(status)) error["metadata"][name] = value;
  return {{"error", error}};
}

}  // namespace

absl::Status with_param(absl::Status status, const std::string& name) {
  status.SetPayload(kParamPayload, absl::Cord(name));
  return status;
}

HttpResponse openai_error(const absl::Status& status) {
  HttpResponse response{
      .status = http_status(status), .content_type = "application/json", .body = json_text(error_json(status))};
  if (const absl::Duration delay = error_retry_delay(status); delay > absl::ZeroDuration()) {
    absl::StrAppend(&response.headers, "Retry-After: ", absl::ToInt64Seconds(absl::Ceil(delay, absl::Seconds(1))),
                    "\r\n");
  }
  if (response.status == 401) response.headers += "WWW-Authenticate: Bearer\r\n";
  return response;
}

HttpResponse openai_error(int status, std::string_view code, const std::string& message) {
  const Json error = {
      {"message", message}, {"type", error_type(status)}, {"param", nullptr}, {"code", std::string(code)}};
  return {.status = status,
          .content_type = "application/json",
          .body = json_text({{"error", error}}),
          .headers = status == 503 ? "Retry-After: 1\r\n" : ""};
}

std::string openai_error_event(const absl::Status& status) {
  return absl::StrCat("data: ", json_text(error_json(status)), "\n\n");
}

}  // namespace pkv
