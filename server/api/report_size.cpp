#include "server/api/report_size.h"

#include <algorithm>
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

uint64_t varint_bytes(uint64_t value) {
  return static_cast<uint64_t>((std::bit_width(value | 1) + kBitsOfVarintByte - 1) / kBitsOfVarintByte);
}

// Of a message in another: tag, length, and itself.
uint64_t nested_bytes(uint64_t bytes) { return 1 + varint_bytes(bytes) + bytes; }

absl::Status too_large(const std::string& field, const std::string& what, uint64_t bytes, uint64_t max_bytes,
                       const char* way_out) {
  return make_error({.reason = kReplyTooLarge,
                     .field = field,
                     .description = absl::StrCat(what, " ", bytes, " bytes, and a reply has at most ", max_bytes,
                                                 " (server.max_message_bytes); ", way_out),
                     .metadata = {{"max", std::to_string(max_bytes)}, {"got", std::to_string(bytes)}}});
}

// KeptPositions of all lanes.
uint64_t position_bytes(const CachePlan& plan, size_t heads) {
  const uint64_t bytes_each = varint_bytes(static_cast<uint64_t>(plan.positions_used));
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
  return too_large("cache_report", "the positions of this request may take", bytes, max_bytes,
                   "ask for PER_LAYER, a smaller budget, or a shorter prompt");
}

uint64_t most_logprob_bytes(const Request& request, std::span<const size_t> longest_tokens, int32_t vocab_size) {
  constexpr uint64_t kReplacementBytes = 3;  // of U+FFFD, which stands for a byte
  const uint64_t id = varint_bytes(static_cast<uint64_t>(vocab_size));
  const auto entry = [&](uint64_t bytes) { return (1 + id) + nested_bytes(bytes) + (1 + sizeof(float)); };
  const uint64_t longest = longest_tokens.front();
  uint64_t place = entry(longest);
  const size_t alternatives = std::min(static_cast<size_t>(request.top_logprobs), longest_tokens.size());
  for (const size_t bytes : longest_tokens.first(alternatives)) place += nested_bytes(entry(bytes));
  const uint64_t tokens = static_cast<uint64_t>(request.sampling.max_tokens) +
                          (request.prompt_logprobs ? uint64_t{request.prompt.size()} : 0);
  return tokens * (nested_bytes(place) + id + std::max(longest, kReplacementBytes));
}

absl::Status check_logprob_size(const Request& request, const ServedModel& served, uint64_t max_bytes) {
  if (!request.logprobs || served.longest_tokens.empty()) return absl::OkStatus();
  const uint64_t bytes = most_logprob_bytes(request, served.longest_tokens, served.tokenizer->vocab_size());
  if (bytes <= max_bytes) return absl::OkStatus();
  return too_large(request.top_logprobs > 0 ? "output.top_logprobs" : "output.logprobs",
                   "the log-probabilities of this answer may take", bytes, max_bytes,
                   "take it as a stream (GenerateStream), ask for fewer of them, or for a shorter answer "
                   "(sampling.max_tokens)");
}

absl::Status check_reply_size(uint64_t bytes, uint64_t max_bytes, const std::string& field) {
  if (bytes <= max_bytes) return absl::OkStatus();
  return too_large(field, "what is made of it takes", bytes, max_bytes, "send it in parts");
}

}  // namespace pkv
