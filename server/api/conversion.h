// The engine's results as messages of the contract.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "pyramidkv/v1/cache.pb.h"
#include "pyramidkv/v1/generation.pb.h"
#include "server/api/output_assembler.h"
#include "server/engine/request_result.h"
#include "server/engine/stats.h"
#include "server/text/tokenizer.h"

namespace pkv {

// How much of the report a caller wants; kNone: no report at all.
enum class ReportDetail : uint8_t { kNone, kSummary, kPerLayer, kPositions };

// An answer that is complete.
struct AnswerEnding {
  const RequestResult& result;
  const Request& request;
  ReportDetail report = ReportDetail::kSummary;  // wanted
  const std::string& matched_stop;
};

// Least, mean and most entries of a layer's KV heads; at least one.
void set_kept(std::span<const int32_t> kept, pyramidkv::v1::LayerCache& out);
void set_report(const CacheReport& report, const PolicySpec& spec, ReportDetail detail,
                pyramidkv::v1::CacheReport& out);
void set_timings(const RequestResult::Timings& timings, pyramidkv::v1::Timings& out);
void set_usage(const RequestResult& result, pyramidkv::v1::Usage& out);
pyramidkv::v1::FinishReason to_proto(FinishReason reason);

void add_logprobs(std::span<const TokenLogprob> tokens, const Tokenizer& tokenizer,
                  google::protobuf::RepeatedPtrField<pyramidkv::v1::TokenLogprob>& out);

// Of a message that ends an answer: usage, timings, the report where it is wanted, and of the choice what ended it.
template <typename Message>
void set_ending(const AnswerEnding& ending, Message& message, pyramidkv::v1::Choice& choice) {
  choice.set_index(0);
  choice.set_finish_reason(to_proto(ending.result.finish_reason));
  choice.set_matched_stop(ending.matched_stop);
  set_usage(ending.result, *message.mutable_usage());
  set_timings(ending.result.timings, *message.mutable_timings());
  if (ending.report != ReportDetail::kNone) {
    set_report(ending.result.cache, ending.request.policy, ending.report, *message.mutable_cache());
  }
}
// Text, ids and log-probabilities, into a Choice or a StreamDelta.
template <typename Message>
void set_piece(OutputAssembler::Piece piece, const Tokenizer& tokenizer, Message& out) {
  out.set_text(std::move(piece.text));
  out.mutable_token_ids()->Add(piece.token_ids.begin(), piece.token_ids.end());
  add_logprobs(piece.logprobs, tokenizer, *out.mutable_logprobs());
}

}  // namespace pkv
