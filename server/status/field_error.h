// Errors about one field of what a caller sent: the field's path and what is wrong with it travel beside the sentence
// that people read, so nobody has to take that apart.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"

namespace pkv {

struct FieldError {
  std::string field;        // its path, as in the message it was sent in
  std::string description;  // without the field
};

// A status "field: description" that says so; and what such a status says, nothing for any other.
absl::Status field_error(const std::string& field, const std::string& description,
                         absl::StatusCode code = absl::StatusCode::kInvalidArgument);
std::optional<FieldError> field_error_of(const absl::Status& status);

// The same error, its other payloads included, about another field.
absl::Status with_field(const absl::Status& status, const std::string& field);

}  // namespace pkv
