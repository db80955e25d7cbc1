// Every rule of the contract that a request has to meet before the engine sees it. Errors name the field (errors.h).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "pyramidkv/v1/generation.pb.h"
#include "server/engine/request.h"
#include "server/rpc/conversion.h"
#include "server/rpc/output_assembler.h"
#include "server/rpc/server_state.h"

namespace pkv {

inline constexpr int32_t kDefaultMaxTokens = 256;
inline constexpr float kDefaultTemperature = 1.0F;
inline constexpr uint32_t kMaxTopLogprobs = 20;
inline constexpr int kMaxStops = 16;
inline constexpr size_t kMaxStopBytes = 1024;
inline constexpr size_t kMaxRequestIdBytes = 256;
inline constexpr float kMaxLogitBias = 100.0F;
inline constexpr int kMaxComparisons = 8;

// A request that may be submitted, and how its caller wants to be answered.
struct ValidRequest {
  std::shared_ptr<const Request> request;
  OutputOptions output;
  ReportDetail report = ReportDetail::kSummary;
};

// `deadline` as the caller's context has it. Draws a seed and a request id where the caller names none.
absl::StatusOr<ValidRequest> validate_request(const pyramidkv::v1::GenerateRequest& message, const ServedModel& served,
                                              ServerState& state, std::optional<absl::Time> deadline);
// The baseline of a comparison with the policies to compare it with. Fields below "request" and "policies[i]".
absl::StatusOr<ValidRequest> validate_comparison(const pyramidkv::v1::CompareRequest& message,
                                                 const ServedModel& served, ServerState& state,
                                                 std::optional<absl::Time> deadline);

// ---- the parts of it

// A prompt as it is used.
struct PromptInput {
  std::vector<TokenId> tokens;
  TokenSpan system_message;  // of a chat, what truncation left of it; empty: there is none
};
// Everything but whether it can be admitted.
struct RequestDraft {
  std::shared_ptr<Request> request;
  OutputOptions output;
  ReportDetail report = ReportDetail::kSummary;
  PromptInput prompt;
};
absl::StatusOr<RequestDraft> read_request(const pyramidkv::v1::GenerateRequest& message, const ServedModel& served,
                                          ServerState& state, std::optional<absl::Time> deadline);

// sampling.* but max_tokens; ids against a vocabulary of `vocab_size`.
absl::Status read_sampling(const pyramidkv::v1::SamplingParams& message, int32_t vocab_size, SamplingParams& out);

// The stop strings of sampling.stop.
absl::StatusOr<std::vector<std::string>> read_stops(const pyramidkv::v1::SamplingParams& message);

// The prompt with truncate_prompt_tokens applied.
absl::StatusOr<PromptInput> read_prompt(const pyramidkv::v1::GenerateRequest& message, const ServedModel& served);
// The field that a prompt came in.
const char* input_field(const pyramidkv::v1::GenerateRequest& message);
// Adds the system message to the pins where the policy asks for it; BAD_CACHE_POLICY where the input is no chat.
absl::Status pin_system_message(const pyramidkv::v1::GenerateRequest& message, const PromptInput& prompt,
                                PolicySpec& spec);

// Token ids in range, field path `field`[i] otherwise.
absl::StatusOr<std::vector<TokenId>> read_token_ids(const google::protobuf::RepeatedField<uint32_t>& ids,
                                                    int32_t vocab_size, const std::string& field);

// A chat as its prompt. Errors below "chat".
absl::StatusOr<RenderedChat> render_chat(const pyramidkv::v1::ChatInput& chat, const ChatTemplate& chat_template);

// `text` with its special tokens parsed; with the begin-of-text token in front where the model wants one, `add_special`
// is set and the text does not bring its own.
absl::StatusOr<std::vector<TokenId>> encode_text(const std::string& text, const Tokenizer& tokenizer, bool add_special,
                                                 const std::string& field);

// Tokens that prompt and answer may have together: the model's length, unless positions stay within what the cache
// holds. Then the engine judges what that may be.
int64_t longest_text(const PolicySpec& policy, int32_t max_positions);
absl::Status context_too_long(const std::string& field, int64_t max, int64_t got, const std::string& description);

// Engine::check with the contract's errors: BAD_CACHE_POLICY, CONTEXT_TOO_LONG.
absl::StatusOr<Admission> ask_engine(const Engine::Query& query, const ServedModel& served);
// CACHE_NEVER_FITS with the figures, where they say so.
absl::Status admission_error(const Admission& admission, const PolicySpec& policy);
// Both, of a whole request.
absl::Status check_admission(const Request& request, const ServedModel& served);

}  // namespace pkv
