// The shortfall travels as payloads of a status.
#include "server/policy/recall_shortfall.h"

#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "server/policy/policy_spec.h"
#include "server/status/field_error.h"

namespace pkv {
namespace {

constexpr char kReachedPayload[] = "pyramidkv/recall_reached";
constexpr char kLayerPayload[] = "pyramidkv/recall_layer";

}  // namespace

absl::Status recall_not_reached(const RecallShortfall& shortfall, int64_t min_recall_millionths) {
  absl::Status status =
      field_error("cache_policy.budget.min_recall",
                  absl::StrCat("layer ", shortfall.layer, " reaches a recall of ", shortfall.reached,
                               " within its share of max_bytes, not ",
                               static_cast<double>(min_recall_millionths) / static_cast<double>(kMillion)),
                  absl::StatusCode::kFailedPrecondition);
  status.SetPayload(kReachedPayload, absl::Cord(absl::StrCat(shortfall.reached)));
  status.SetPayload(kLayerPayload, absl::Cord(absl::StrCat(shortfall.layer)));
  return status;
}

std::optional<RecallShortfall> recall_shortfall(const absl::Status& status) {
  const absl::optional<absl::Cord> reached = status.GetPayload(kReachedPayload),
                                   layer = status.GetPayload(kLayerPayload);
  RecallShortfall shortfall;
  if (!reached || !absl::SimpleAtod(std::string(*reached), &shortfall.reached)) return std::nullopt;
  if (!layer || !absl::SimpleAtoi(std::string(*layer), &shortfall.layer)) return std::nullopt;
  return shortfall;
}

}  // namespace pkv
