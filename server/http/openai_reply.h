// Answers in the form of OpenAI's API, with the cache report beside them.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "server/api/conversion.h"
#include "server/api/output_assembler.h"
#include "server/engine/request_result.h"
#include "server/http/json_text.h"
#include "server/http/openai_request.h"
#include "server/text/tokenizer.h"

namespace pkv {

// What an answer's parts have in common, and what has been told of it.
class OpenAiReply {
 public:
  struct Origin {
    std::string request_id;
    std::string model;
    absl::Time created;
    bool logprobs = false;  // wanted
    bool echo = false;      // begins with the prompt
  };
  // `tokenizer` must outlive it.
  OpenAiReply(const OpenAiAnswer& answer, Origin origin, const Tokenizer& tokenizer)
      : answer_(answer), origin_(std::move(origin)), tokenizer_(tokenizer) {}

  // The whole answer in one.
  std::string whole(const OutputAssembler::Piece& piece, const AnswerEnding& ending);

  // Of a stream, as server-sent events. The first may be empty.
  std::string first();
  // A comment, which clients pass over.
  static std::string progress(double prefill_done);
  std::string next(const OutputAssembler::Piece& piece);
  std::string last(const AnswerEnding& ending);

 private:
  bool chat() const { return answer_.endpoint == OpenAiEndpoint::kChat; }
  Json frame(bool chunk) const;
  Json logprobs(const OutputAssembler::Piece& piece);
  Json listed_logprobs(const OutputAssembler::Piece& piece);
  Json chat_logprobs(const OutputAssembler::Piece& piece) const;
  std::string event(Json choice, const Json& usage) const;

  const OpenAiAnswer answer_;
  const Origin origin_;
  const Tokenizer& tokenizer_;
  size_t text_offset_ = 0;  // characters of the tokens listed so far
  bool listed_ = false;     // any
};

}  // namespace pkv
