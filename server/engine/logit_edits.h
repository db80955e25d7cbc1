// What bias, penalties and min_tokens do to the logits that an answer is chosen from: a table of edits in backend
// memory, of which a token of the answer changes one entry, and its copy on the host. It reserves what it can ever
// need.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "server/engine/request.h"

namespace pkv {

class LogitEdits {
 public:
  // Tokens whose logits an answer may change, at most.
  static int64_t most_tokens(const Request& request);
  // What as many cost, on the backend and on the host.
  static uint64_t bytes(int64_t tokens) {
    return static_cast<uint64_t>(tokens) * (2 * sizeof(LogitEdit) + sizeof(Place));
  }

  // `request` must outlive this. RESOURCE_EXHAUSTED where the machine lacks the memory.
  static absl::StatusOr<LogitEdits> create(Backend& backend, const Request& request, int32_t vocabulary);

  // Says what is to be edited after `answer`, which is one token longer than the last time, or the same. Takes the
  // change since then along: what is said must reach the backend.
  void describe(std::span<const TokenId> answer, SampleRow& row);
  // The same edits on the host, and back. logits [V].
  void apply(std::span<float> logits) {
    apply_edits(edits_.data(), static_cast<int32_t>(edits_.size()), no_end_, logits.data());
  }
  void restore(std::span<float> logits) const {
    restore_edits(edits_.data(), static_cast<int32_t>(edits_.size()), logits.data());
  }

 private:
  struct Place {
    TokenId token;
    int32_t index;  // in edits_
    int32_t count;  // in the answer
  };

  LogitEdits(const Request& request, int32_t vocabulary) : request_(&request), vocabulary_(vocabulary) {}
  void add_known(std::span<const TokenId> tokens);  // ascending, distinct
  Place& place_of(TokenId token);                   // makes it where there is none
  int32_t count_token(TokenId token);               // of the answer; the edit that it changed

  const Request* request_;
  int32_t vocabulary_;
  Tensor table_;                  // LogitEdit [most tokens]
  std::vector<LogitEdit> edits_;  // its copy
  std::vector<Place> places_;     // by token
  size_t counted_ = 0;            // tokens of the answer that are in edits_
  bool no_end_ = false;
};

}  // namespace pkv
