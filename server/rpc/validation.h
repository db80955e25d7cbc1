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

// A request that may be submitted, and how its caller wants to be answered.
struct ValidRequest {
  std::shared_ptr<const Request> request;
  OutputOptions output;
  ReportDetail report = ReportDetail::kSummary;
};

// `deadline` as the caller's context has it. Draws a seed and a request id where the caller names none.
absl::StatusOr<ValidRequest> validate_request(const pyramidkv::v1::GenerateRequest& message, const ServedModel& served,
                                              ServerState& state, std::optional<absl::Time> deadline);

// sampling.* but max_tokens; ids against a vocabulary of `vocab_size`.
absl::Status read_sampling(const pyramidkv::v1::SamplingParams& message, int32_t vocab_size, SamplingParams& out);

// The stop strings of sampling.stop.
absl::StatusOr<std::vector<std::string>> read_stops(const pyramidkv::v1::SamplingParams& message);

// Token ids in range, field path `field`[i] otherwise.
absl::StatusOr<std::vector<TokenId>> read_token_ids(const google::protobuf::RepeatedField<uint32_t>& ids,
                                                    int32_t vocab_size, const std::string& field);

// A chat as its prompt. Errors below "chat".
absl::StatusOr<RenderedChat> render_chat(const pyramidkv::v1::ChatInput& chat, const ChatTemplate& chat_template);

// `text` with its special tokens parsed; with the begin-of-text token in front where the model wants one, `add_special`
// is set and the text does not bring its own.
absl::StatusOr<std::vector<TokenId>> encode_text(const std::string& text, const Tokenizer& tokenizer, bool add_special,
                                                 const std::string& field);

// Whether the contract of `request` can ever be kept: CACHE_NEVER_FITS with the figures, BAD_CACHE_POLICY for a budget
// this prompt does not allow.
absl::Status check_admission(const Request& request, const Engine& engine);

}  // namespace pkv
