// A refusal travels as a payload of a status: its reason and every figure by name.
#include "server/engine/refusal.h"

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/types/optional.h"

namespace pkv {
namespace {

constexpr char kPayload[] = "pyramidkv/refusal";

constexpr std::array<std::string_view, 5> kReasons = {"length", "budget", "workspace", "pool", "rows"};

struct Figure {
  std::string_view name;
  uint64_t Refusal::*value;
};
constexpr Figure kFigures[] = {{"positions", &Refusal::positions},
                               {"max_positions", &Refusal::max_positions},
                               {"rows", &Refusal::rows},
                               {"max_running", &Refusal::max_running},
                               {"peak_bytes", &Refusal::peak_bytes},
                               {"pool_bytes", &Refusal::pool_bytes},
                               {"workspace_bytes", &Refusal::workspace_bytes},
                               {"state_bytes", &Refusal::state_bytes},
                               {"workspace_limit_bytes", &Refusal::workspace_limit_bytes},
                               {"smallest_budget_tokens", &Refusal::smallest_budget_tokens},
                               {"smallest_budget_bytes", &Refusal::smallest_budget_bytes},
                               {"largest_budget_tokens", &Refusal::largest_budget_tokens}};

}  // namespace

absl::Status refused(const Refusal& refusal) {
  std::string text(kReasons[static_cast<size_t>(refusal.reason)]);
  for (const Figure& figure : kFigures) {
    absl::StrAppend(&text, " ", std::string(figure.name), "=", refusal.*figure.value);
  }
  const bool length = refusal.reason == Refusal::Reason::kLength;
  absl::Status status(length ? absl::StatusCode::kInvalidArgument : absl::StatusCode::kFailedPrecondition,
                      absl::StrCat("refused: ", text));
  status.SetPayload(kPayload, absl::Cord(text));
  return status;
}

std::optional<Refusal> refusal_of(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kPayload);
  if (!payload) return std::nullopt;
  const std::vector<std::string> words = absl::StrSplit(std::string(*payload), ' ');
  Refusal refusal;
  for (size_t reason = 0; reason < kReasons.size(); ++reason) {
    if (words.front() == kReasons[reason]) refusal.reason = static_cast<Refusal::Reason>(reason);
  }
  for (size_t i = 1; i < words.size(); ++i) {
    const std::vector<std::string> pair = absl::StrSplit(words[i], '=');
    for (const Figure& figure : kFigures) {
      if (pair.front() == figure.name && !absl::SimpleAtoi(pair.back(), &(refusal.*figure.value))) return std::nullopt;
    }
  }
  return refusal;
}

}  // namespace pkv
