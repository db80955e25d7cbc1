// An error handed on to the caller in one line.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Returns the expression's absl::Status from the enclosing function where it is an error.
#define PKV_RETURN_IF_ERROR(expression)                                              \
  do {                                                                               \
    if (absl::Status pkv_status = (expression); !pkv_status.ok()) return pkv_status; \
  } while (false)

// Returns the status of the expression, an absl::StatusOr, where it is an error; otherwise its value becomes that of
// `left`, which may be a declaration.
#define PKV_ASSIGN_OR_RETURN(left, expression) \
  PKV_ASSIGN_OR_RETURN_NAMED(PKV_STATUS_NAME(pkv_result_, __LINE__), left, expression)

#define PKV_STATUS_NAME(prefix, line) PKV_STATUS_JOIN(prefix, line)
#define PKV_STATUS_JOIN(prefix, line) prefix##line
#define PKV_ASSIGN_OR_RETURN_NAMED(result, left, expression) \
  auto result = (expression);                                \
  if (!result.ok()) return std::move(result).status();       \
  left = *std::move(result)
