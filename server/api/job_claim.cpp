#include "server/api/job_claim.h"

#include "absl/strings/str_cat.h"
#include "server/api/errors.h"

namespace pkv {

std::string owner_of(const KeyUse* key) { return key == nullptr ? "" : key->name(); }

absl::StatusOr<JobClaim> read_claim(const pyramidkv::v1::GenerateRequest& message, const KeyUse* key) {
  const int32_t priority = message.priority();
  if (priority < -kMostPriority || priority > kMostPriority) {
    return bad_input("priority", absl::StrCat("must be from ", -kMostPriority, " to ", kMostPriority, ", not ",
                                              priority, "; the lower goes first"));
  }
  if (key != nullptr && priority < key->best_priority()) {
    return make_error({.reason = kPermissionDenied,
                       .field = "priority",
                       .description = absl::StrCat("must be at least ", key->best_priority(), " with the key \"",
                                                   key->name(), "\", not ", priority, "; the lower goes first"),
                       .metadata = {{"key", key->name()}}});
  }
  return JobClaim{.owner = owner_of(key), .priority = priority};
}

}  // namespace pkv
