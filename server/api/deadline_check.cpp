#include "server/api/deadline_check.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/api/errors.h"

namespace pkv {
namespace {

// So much longer, by the measured rate: units beside running answers are slower than those of a prompt alone.
constexpr double kCertainly = 1.5;

std::string seconds_text(absl::Duration duration) { return absl::StrFormat("%.1f", absl::ToDoubleSeconds(duration)); }

}  // namespace

absl::Status check_deadline(const Request& request, const Contract& contract, const Engine& engine) {
  if (!request.deadline) return absl::OkStatus();
  const absl::Duration least = engine.least_prompt_time(contract);
  const absl::Duration left = *request.deadline - engine.options().clock();
  if (least <= kCertainly * left) return absl::OkStatus();
  const auto tokens = static_cast<double>(request.prompt.size());
  const std::string rate = absl::StrFormat("%.0f", tokens / absl::ToDoubleSeconds(least));
  return make_error(
      {.reason = kDeadlineTooShort,
       .description = absl::StrCat("to read the prompt of ", request.prompt.size(), " tokens takes ",
                                   seconds_text(least), " s at least, at the ", rate,
                                   " tokens a second that were measured for such a prompt, and ", seconds_text(left),
                                   " s are left; allow more time, or send a shorter prompt "
                                   "(truncate_prompt_tokens)"),
       .metadata = {{"estimated_seconds", seconds_text(least)},
                    {"remaining_seconds", seconds_text(left)},
                    {"tokens_per_second", rate}}});
}

absl::Status blame_deadline(absl::Status status, std::optional<absl::Time> deadline) {
  if (!absl::IsCancelled(status) || !deadline || *deadline > absl::Now()) return status;
  return absl::DeadlineExceededError("the deadline has passed");
}

}  // namespace pkv
