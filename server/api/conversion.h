// The engine's results as messages of the contract.
#pragma once

#include <span>
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

// Least, mean and most entries of a layer's KV heads; at least one.
void set_kept(std::span<const int32_t> kept, pyramidkv::v1::LayerCache& out);
void set_report(const CacheReport& report, const PolicySpec& spec, ReportDetail detail,
                pyramidkv::v1::CacheReport& out);
void set_timings(const RequestResult::Timings& timings, pyramidkv::v1::Timings& out);
void set_usage(const RequestResult& result, pyramidkv::v1::Usage& out);
pyramidkv::v1::FinishReason to_proto(FinishReason reason);

void add_logprobs(std::span<const TokenLogprob> tokens, const Tokenizer& tokenizer,
                  google::protobuf::RepeatedPtrField<pyramidkv::v1::TokenLogprob>& out);
// Text, ids and log-probabilities, into a Choice or a StreamDelta.
template <typename Message>
void set_piece(OutputAssembler::Piece piece, const Tokenizer& tokenizer, Message& out) {
  out.set_text(std::move(piece.text));
  out.mutable_token_ids()->Add(piece.token_ids.begin(), piece.token_ids.end());
  add_logprobs(piece.logprobs, tokenizer, *out.mutable_logprobs());
}

}  // namespace pkv
