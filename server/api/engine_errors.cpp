#include "server/api/engine_errors.h"

#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/api/errors.h"
#include "server/policy/recall_shortfall.h"
#include "server/status/field_error.h"

namespace pkv {
absl::Status submit_error(const absl::Status& status, Engine::State state) {
  ErrorDetail detail{.code = status.code(), .description = std::string(status.message())};
  switch (status.code()) {
    case absl::StatusCode::kResourceExhausted:
      detail.reason = kQueueFull;
      detail.retry_delay = kQueueRetryDelay;
      return make_error(detail);
    case absl::StatusCode::kUnavailable:
      detail.reason = state == Engine::State::kFailed ? kEngineFailed : kServerDraining;
      if (state != Engine::State::kFailed) detail.retry_delay = kQueueRetryDelay;
      return make_error(detail);
    default:
      return status;
  }
}

absl::Status running_error(const absl::Status& status, Engine::State state) {
  if (absl::IsUnavailable(status)) return submit_error(status, state);  // waited, or was cut off by a drain
  if (state == Engine::State::kFailed && absl::IsInternal(status)) {
    return make_error({.code = status.code(), .reason = kEngineFailed, .description = std::string(status.message())});
  }
  if (absl::IsResourceExhausted(status)) return out_of_memory(std::string(status.message()));
  if (absl::IsDataLoss(status)) {
    return make_error({.reason = kNotANumber, .description = std::string(status.message())});
  }
  const std::optional<RecallShortfall> shortfall = recall_shortfall(status);
  const std::optional<FieldError> named = field_error_of(status);
  if (!shortfall || !named) return status;
  return make_error(
      {.code = status.code(),
       .reason = kRecallNotReached,
       .field = named->field,
       .description = named->description,
       .metadata = {{"reached", absl::StrCat(shortfall->reached)}, {"layer", std::to_string(shortfall->layer)}}});
}

}  // namespace pkv
