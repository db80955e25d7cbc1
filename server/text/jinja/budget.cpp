#include "server/text/jinja/budget.h"

#include "server/text/cancelled.h"

namespace pkv::jinja {

absl::Status Budget::status() const {
  if (stop_.stop_requested()) return cancelled_by_caller();
  if (out_of_memory_) return absl::ResourceExhaustedError("the template needs more memory than a rendering may use");
  if (steps_left_ == 0) return absl::ResourceExhaustedError("the template takes more steps than a rendering may use");
  if (too_deep_) return absl::ResourceExhaustedError("the template nests lists or dicts too deeply");
  return absl::OkStatus();
}

}  // namespace pkv::jinja
