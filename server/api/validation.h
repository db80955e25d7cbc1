// From a GenerateRequest to a request that may be submitted: every rule that it has to meet before the engine's thread
// sees it. Errors name the field (errors.h).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "pyramidkv/v1/generation.pb.h"
#include "server/api/conversion.h"
#include "server/api/output_assembler.h"
#include "server/api/prompt_input.h"
#include "server/api/server_state.h"
#include "server/engine/contract.h"

namespace pkv {

inline constexpr int32_t kDefaultMaxTokens = 256;
inline constexpr size_t kMaxRequestIdBytes = 256;
// Not too long, and nothing in it that a log or a terminal would take for more than text.
bool is_request_id(std::string_view id);

// A request that may be submitted, and how its caller wants to be answered.
struct ValidRequest {
  Prepared prepared;
  OutputOptions output;
  ReportDetail report = ReportDetail::kSummary;

  const Request& request() const { return *prepared.request(); }
};

// `deadline` as the caller's context has it; `stop` as of read_prompt(). Draws a seed and a request id where the caller
// names none.
absl::StatusOr<ValidRequest> validate_request(const pyramidkv::v1::GenerateRequest& message, const ServedModel& served,
                                              ServerState& state, std::optional<absl::Time> deadline,
                                              const std::stop_token& stop);

// The two parts of it: everything but the contract, and that. The second's errors are about the whole request.
struct RequestDraft {
  std::shared_ptr<Request> request;
  OutputOptions output;
  ReportDetail report = ReportDetail::kSummary;
  PromptInput prompt;
};
absl::StatusOr<RequestDraft> read_request(const pyramidkv::v1::GenerateRequest& message, const ServedModel& served,
                                          ServerState& state, std::optional<absl::Time> deadline,
                                          const std::stop_token& stop);
absl::StatusOr<ValidRequest> prepare_draft(const RequestDraft& draft, const ServedModel& served,
                                           const FrontLimits& limits);

// Tokens that prompt and answer may have together: the model's length, unless positions stay within what the cache
// holds. Then the engine judges what that may be.
int64_t longest_text(const PolicySpec& policy, int32_t max_positions);

}  // namespace pkv
