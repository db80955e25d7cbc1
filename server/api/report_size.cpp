#include "server/api/report_size.h"

#include <bit>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/api/errors.h"

namespace pkv {
namespace {

constexpr int kBitsOfVarintByte = 7;
// A lane's own: its head, and the tags and lengths of its message and of both lists, each below 256 MiB.
constexpr uint64_t kBytesOfLane = 3 + 3 * 5;

int64_t sum(std::span<const int32_t> lanes) { return std::accumulate(lanes.begin(), lanes.end(), int64_t{0}); }

// Entries of all lanes, after the cut or at the end; of lanes that share what they have together.
int64_t entries(std::span<const int32_t> lanes, std::span<const int64_t> shared, const CachePlan& plan, size_t heads) {
  int64_t total = 0;
  for (size_t layer = 0; layer * heads < lanes.size(); ++layer) {
    total += plan.shares(static_cast<int32_t>(layer)) ? shared[layer] : sum(lanes.subspan(layer * heads, heads));
  }
  return total;
}

// KeptPositions of all lanes.
uint64_t position_bytes(const CachePlan& plan, size_t heads) {
  const auto last = static_cast<uint64_t>(plan.positions_used);
  const auto bytes_each = static_cast<uint64_t>((std::bit_width(last | 1) + kBitsOfVarintByte - 1) / kBitsOfVarintByte);
  const int64_t kept =
      plan.shares_model() ? plan.model_budget : entries(plan.lane_budgets, plan.shared_budgets, plan, heads);
  const int64_t final_ones =
      plan.shares_model() ? plan.model_limit : entries(plan.lane_limits, plan.shared_limits, plan, heads);
  return kBytesOfLane * plan.lane_budgets.size() + bytes_each * static_cast<uint64_t>(kept + final_ones);
}

}  // namespace

uint64_t most_report_bytes(const Contract& contract, int32_t kv_heads, int32_t max_tokens) {
  const auto heads = static_cast<size_t>(kv_heads);
  uint64_t bytes = position_bytes(contract.own.plan, heads);
  for (const Contract::Terms& rival : contract.rivals) {
    bytes += position_bytes(rival.plan, heads) + sizeof(double) * static_cast<uint64_t>(max_tokens);
  }
  return bytes;
}

absl::Status check_report_size(ReportDetail detail, const Contract& contract, int32_t kv_heads, int32_t max_tokens,
                               uint64_t max_bytes) {
  if (detail != ReportDetail::kPositions) return absl::OkStatus();
  const uint64_t bytes = most_report_bytes(contract, kv_heads, max_tokens);
  if (bytes <= max_bytes) return absl::OkStatus();
  return make_error(
      {.reason = kReplyTooLarge,
       .field = "cache_report",
       .description =
           absl::StrCat("the positions of this request may take ", bytes, " bytes, and a reply has at most ", max_bytes,
                        " (server.max_message_bytes); ask for PER_LAYER, a smaller budget, or a "
                        "shorter prompt"),
       .metadata = {{"max", std::to_string(max_bytes)}, {"got", std::to_string(bytes)}}});
}

}  // namespace pkv
