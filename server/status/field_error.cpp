// The field and its description are payloads of a status.
#include "server/status/field_error.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"

namespace pkv {
namespace {

constexpr char kFieldPayload[] = "pyramidkv/field";
constexpr char kDescriptionPayload[] = "pyramidkv/description";

}  // namespace

absl::Status field_error(const std::string& field, const std::string& description, absl::StatusCode code) {
  absl::Status status(code, absl::StrCat(field, ": ", description));
  status.SetPayload(kFieldPayload, absl::Cord(field));
  status.SetPayload(kDescriptionPayload, absl::Cord(description));
  return status;
}

std::optional<FieldError> field_error_of(const absl::Status& status) {
  const absl::optional<absl::Cord> field = status.GetPayload(kFieldPayload),
                                   description = status.GetPayload(kDescriptionPayload);
  if (!field || !description) return std::nullopt;
  return FieldError{.field = std::string(*field), .description = std::string(*description)};
}

absl::Status with_field(const absl::Status& status, const std::string& field) {
  const std::optional<FieldError> named = field_error_of(status);
  if (!named) return status;
  absl::Status moved = field_error(field, named->description, status.code());
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    if (url != kFieldPayload) moved.SetPayload(url, payload);
  });
  return moved;
}

}  // namespace pkv
