#include "server/api/output_assembler.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/status/statusor.h"

namespace pkv {
namespace {

template <typename T>
std::vector<T> take_front(std::vector<T>& from, size_t count) {
  if (count >= from.size()) return std::exchange(from, {});
  std::vector<T> front(std::make_move_iterator(from.begin()),
                       std::make_move_iterator(from.begin() + static_cast<ptrdiff_t>(count)));
  from.erase(from.begin(), from.begin() + static_cast<ptrdiff_t>(count));
  return front;
}

}  // namespace

OutputAssembler::OutputAssembler(const Tokenizer& tokenizer, const Request& request, const OutputOptions& options)
    : tokenizer_(tokenizer),
      request_(request),
      options_(options),
      ending_tokens_(ending_tokens(request)),
      detokenizer_(tokenizer, /*skip_leading_space=*/options.echo),
      matcher_(options.stop) {}

void OutputAssembler::add_prompt_logprobs(std::span<const TokenLogprob> tokens) {
  prompt_logprobs_.insert(prompt_logprobs_.end(), tokens.begin(), tokens.end());
}

// The prompt goes out as one, when the answer begins: until then a stream's progress messages may come.
void OutputAssembler::echo_prompt() {
  if (!options_.echo || echoed_) return;
  echoed_ = true;
  for (const TokenId id : request_.prompt) pending_.text += detokenizer_.push(id);
  if (options_.return_token_ids) pending_.token_ids = request_.prompt;
  if (options_.logprobs) pending_.logprobs = std::move(prompt_logprobs_);
}

bool OutputAssembler::push_text(const std::string& text) {
  // Stop strings count from min_tokens on, as end tokens do.
  if (tokens_ < request_.sampling.min_tokens) {
    pending_.text += text;
    return true;
  }
  const StopMatcher::Result result = matcher_.push(text);
  pending_.text += result.text;
  if (result.matched < 0) return true;
  matched_stop_ = options_.stop[static_cast<size_t>(result.matched)];
  return false;
}

bool OutputAssembler::add_token(const TokenLogprob& token) {
  echo_prompt();
  const size_t before = pending_.text.size();
  const bool goes_on = push_token(token);
  unread_bytes_ += sizeof(TokenId) + pending_.text.size() - before;
  if (options_.logprobs) unread_bytes_ += sizeof(TokenLogprob) + token.top.size() * sizeof(token.top.front());
  return goes_on;
}

bool OutputAssembler::push_token(const TokenLogprob& token) {
  ++tokens_;
  ++untaken_tokens_;
  if (options_.return_token_ids) pending_.token_ids.push_back(token.id);
  if (options_.logprobs) pending_.logprobs.push_back(token);
  if (withheld_ && !push_text(detokenizer_.push(*std::exchange(withheld_, std::nullopt)))) return false;
  if (ending_tokens_.contains(token.id)) {
    withheld_ = token.id;
    return true;
  }
  return push_text(detokenizer_.push(token.id));
}

void OutputAssembler::finish(const RequestResult& result) {
  echo_prompt();
  finished_ = true;
  if (!matched_stop_.empty()) return;
  if (result.matched_stop_token) {
    const TokenId id = *result.matched_stop_token;
    absl::StatusOr<std::string> text = tokenizer_.decode({&id, 1});
    if (text.ok()) matched_stop_ = *std::move(text);
  } else if (withheld_ && !push_text(detokenizer_.push(*withheld_))) {
    return;
  }
  if (!push_text(detokenizer_.finish())) return;
  pending_.text += matcher_.finish();
}

size_t OutputAssembler::token_numbers() const {
  return 1 + (options_.logprobs ? 1 + static_cast<size_t>(request_.top_logprobs) : 0);
}

size_t OutputAssembler::untaken_numbers() const {
  return std::max(pending_.token_ids.size(), pending_.logprobs.size()) * token_numbers();
}

bool OutputAssembler::ready() const {
  if (pending_.empty()) return false;
  return finished_ || untaken_tokens_ >= options_.interval_tokens || (!taken_ && untaken_tokens_ > 0);
}

OutputAssembler::Piece OutputAssembler::take(size_t max_tokens) {
  Piece piece;
  piece.text = std::exchange(pending_.text, {});
  piece.token_ids = take_front(pending_.token_ids, max_tokens);
  piece.logprobs = take_front(pending_.logprobs, max_tokens);
  taken_ = true;
  if (pending_.empty()) {  // otherwise the rest is still due
    untaken_tokens_ = 0;
    unread_bytes_ = 0;
  }
  return piece;
}

void OutputAssembler::drop() {
  pending_ = {};
  prompt_logprobs_ = {};
  unread_bytes_ = 0;
}

std::string answer_text(const Tokenizer& tokenizer, const Request& request, std::span<const TokenId> tokens) {
  OutputAssembler assembler(tokenizer, request, {.return_token_ids = false});
  RequestResult result;
  for (const TokenId id : tokens) assembler.add_token({.id = id});
  if (!tokens.empty() && ending_tokens(request).contains(tokens.back())) result.matched_stop_token = tokens.back();
  assembler.finish(result);
  return assembler.take(0).text;
}

}  // namespace pkv
