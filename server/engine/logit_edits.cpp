// Edits of logits, kept up to date token by token.
#include "server/engine/logit_edits.h"

#include <algorithm>
#include <unordered_set>

#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace pkv {
namespace {

bool repeats(const SamplingParams& params) { return params.repetition_penalty != 1; }
bool counts(const SamplingParams& params) { return params.frequency_penalty != 0 || params.presence_penalty != 0; }

// The tokens whose logits change before there is an answer, ascending.
std::vector<TokenId> known_tokens(const Request& request) {
  const SamplingParams& params = request.sampling;
  std::vector<TokenId> tokens;
  for (const auto& [token, bias] : params.logit_bias) tokens.push_back(token);
  if (params.min_tokens > 0) {
    const std::unordered_set<TokenId> ends = ending_tokens(request);
    tokens.insert(tokens.end(), ends.begin(), ends.end());
  }
  if (repeats(params)) tokens.insert(tokens.end(), request.prompt.begin(), request.prompt.end());
  std::sort(tokens.begin(), tokens.end());
  tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
  return tokens;
}

}  // namespace

int64_t LogitEdits::most_tokens(const Request& request) {
  const SamplingParams& params = request.sampling;
  if (params.max_tokens == 0) return 0;
  // Nothing is chosen after the last token.
  const int32_t of_answer = repeats(params) || counts(params) ? params.max_tokens - 1 : 0;
  return static_cast<int64_t>(known_tokens(request).size()) + of_answer;
}

absl::StatusOr<LogitEdits> LogitEdits::create(Backend& backend, const Request& request, int32_t vocabulary) {
  LogitEdits made(request, vocabulary);
  const int64_t most = std::min<int64_t>(most_tokens(request), vocabulary);
  if (most == 0) return made;
  PKV_ASSIGN_OR_RETURN(made.table_, backend.allocate(1, most * kWords<LogitEdit>, DType::kI32));
  made.edits_.reserve(static_cast<size_t>(most));
  made.places_.reserve(static_cast<size_t>(most));
  made.add_known(known_tokens(request));
  if (!made.edits_.empty()) {
    const auto words = static_cast<int64_t>(made.edits_.size()) * kWords<LogitEdit>;
    backend.upload(made.table_.view().slice_cols(0, words), made.edits_.data());
  }
  return made;
}

void LogitEdits::add_known(std::span<const TokenId> tokens) {
  for (const TokenId token : tokens) {
    if (token >= 0 && token < vocabulary_) place_of(token);
  }
  const SamplingParams& params = request_->sampling;
  const auto edit_of = [&](TokenId token) -> LogitEdit& { return edits_[static_cast<size_t>(place_of(token).index)]; };
  for (const auto& [token, bias] : params.logit_bias) edit_of(token).bias += bias;
  if (params.min_tokens > 0) {
    for (const TokenId token : ending_tokens(*request_)) {
      if (token >= 0 && token < vocabulary_) edit_of(token).ends = 1;  // a model's own may lie outside
    }
  }
  if (!repeats(params)) return;
  for (const TokenId token : request_->prompt) edit_of(token).repetition = params.repetition_penalty;
}

LogitEdits::Place& LogitEdits::place_of(TokenId token) {
  const auto at = std::lower_bound(places_.begin(), places_.end(), token,
                                   [](const Place& place, TokenId wanted) { return place.token < wanted; });
  if (at != places_.end() && at->token == token) return *at;
  PKV_CHECK(places_.size() < places_.capacity(), "more edits than were reserved");
  edits_.push_back({.token = token});
  return *places_.insert(at, {.token = token, .index = static_cast<int32_t>(edits_.size()) - 1, .count = 0});
}

int32_t LogitEdits::count_token(TokenId token) {
  const SamplingParams& params = request_->sampling;
  if (!repeats(params) && !counts(params)) return -1;
  Place& place = place_of(token);
  ++place.count;
  LogitEdit& edit = edits_[static_cast<size_t>(place.index)];
  edit.repetition = params.repetition_penalty;
  edit.penalty = params.frequency_penalty * static_cast<float>(place.count) + params.presence_penalty;
  return place.index;
}

void LogitEdits::describe(std::span<const TokenId> answer, SampleRow& row) {
  PKV_CHECK(answer.size() - counted_ <= 1, "an answer grows by a token at a time");
  if (answer.size() > counted_) {
    row.changed = count_token(answer.back());
    if (row.changed >= 0) row.change = edits_[static_cast<size_t>(row.changed)];
  }
  counted_ = answer.size();
  no_end_ = static_cast<int64_t>(answer.size()) < request_->sampling.min_tokens;
  row.edits = static_cast<LogitEdit*>(table_.view().data);
  row.edit_count = static_cast<int32_t>(edits_.size());
  row.no_end = no_end_ ? 1 : 0;
}

}  // namespace pkv
