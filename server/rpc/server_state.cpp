#include "server/rpc/server_state.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/rpc/errors.h"

namespace pkv {
namespace {

std::vector<std::string_view> policy_names() {
  std::vector<std::string_view> names;
  for (const PolicyRow& row : policy_table()) names.push_back(row.name);
  return names;
}

}  // namespace

ServerState::ServerState(PolicyCatalog policies, const Log& log, uint64_t random_seed)
    : policies_(std::move(policies)),
      metrics_(policy_names(), status_code_names(), rejection_reasons()),
      log_(log),
      random_(random_seed) {}

absl::StatusOr<const ServedModel*> ServerState::find_model(const std::string& id) const {
  const ServedModel* served = model();
  if (served == nullptr) {
    return make_error(
        {.code = absl::StatusCode::kUnavailable, .reason = kModelLoading, .description = "the model is being loaded"});
  }
  if (!id.empty() && id != served->id) {
    return not_found("model", absl::StrCat("\"", id, "\" is not served here, only \"", served->id, "\""));
  }
  return served;
}

}  // namespace pkv
