// Turns one request's tokens into what its caller reads: text without the end token and without stop strings, token
// ids, log-probabilities; with `echo` the prompt's first. Not thread-safe: who owns it guards it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <unordered_set>
#include <vector>

#include "server/engine/request_result.h"
#include "server/text/detokenizer.h"
#include "server/text/tokenizer.h"

namespace pkv {

struct OutputOptions {
  bool logprobs = false;
  bool echo = false;
  bool return_token_ids = true;
  int32_t interval_tokens = 1;    // tokens of a stream's delta at least, the first and the last excepted
  std::vector<std::string> stop;  // texts that end the answer
};

class OutputAssembler {
 public:
  struct Piece {
    std::string text;
    std::vector<TokenId> token_ids;
    std::vector<TokenLogprob> logprobs;
    bool empty() const { return text.empty() && token_ids.empty() && logprobs.empty(); }
  };

  // `request` and `tokenizer` must outlive it.
  OutputAssembler(const Tokenizer& tokenizer, const Request& request, const OutputOptions& options);

  void add_prompt_logprobs(std::span<const TokenLogprob> tokens);
  // False: the token completed a stop string, and the answer ends here.
  bool add_token(const TokenLogprob& token);
  // No more tokens will come.
  void finish(const RequestResult& result);

  // Whether there is something to send now: the first token, an interval's worth, or the rest.
  bool ready() const;
  // Of the answer's tokens that were not taken yet; the prompt's are bounded by the request.
  size_t unread_bytes() const { return unread_bytes_; }
  // Numbers that a message lists for a token, its id and log-probabilities; and for all that was not taken yet.
  size_t token_numbers() const;
  size_t untaken_numbers() const;
  // What was not taken never will be.
  void drop();
  bool has_tokens() const { return tokens_ > 0; }
  // What has not been taken yet, at most `max_tokens` ids and log-probabilities of it; all text with the first of them.
  Piece take(size_t max_tokens);
  // The stop string, or the text of the stop token; empty where neither ended the answer.
  const std::string& matched_stop() const { return matched_stop_; }

 private:
  void echo_prompt();
  bool push_text(const std::string& text);
  bool push_token(const TokenLogprob& token);

  const Tokenizer& tokenizer_;
  const Request& request_;
  OutputOptions options_;
  std::unordered_set<TokenId> ending_tokens_;
  Detokenizer detokenizer_;
  StopMatcher matcher_;
  std::vector<TokenLogprob> prompt_logprobs_;
  Piece pending_;
  std::string matched_stop_;
  std::optional<TokenId> withheld_;  // a possible end token, whose text is only shown if the answer goes on
  int32_t tokens_ = 0;
  int32_t untaken_tokens_ = 0;
  size_t unread_bytes_ = 0;
  bool taken_ = false;
  bool finished_ = false;
  bool echoed_ = false;
};

// The text of a whole answer to `request`, without the token that ended it.
std::string answer_text(const Tokenizer& tokenizer, const Request& request, std::span<const TokenId> tokens);

}  // namespace pkv
