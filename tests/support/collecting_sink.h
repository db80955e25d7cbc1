// A TokenSink that remembers everything and lets a test wait for the end.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "server/engine/cache_report.h"

namespace pkv {

class CollectingSink : public TokenSink {
 public:
  void on_start() override {}
  void on_progress(double) override {}
  void on_prompt_logprobs(std::span<const TokenLogprob> tokens) override {
    const std::lock_guard lock(mutex_);
    prompt_.insert(prompt_.end(), tokens.begin(), tokens.end());
  }
  bool on_token(const TokenLogprob& token) override {
    const std::lock_guard lock(mutex_);
    tokens_.push_back(token);
    changed_.notify_all();
    return true;
  }
  void on_end(RequestResult result) override {
    sort_positions(result);
    end(absl::OkStatus(), std::move(result));
  }
  void on_error(const absl::Status& status) override { end(status, {}); }

  // Waits for the request's last event.
  absl::Status wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return status_.has_value(); });
    return *status_;
  }
  // Only after wait().
  const RequestResult& result() const { return result_; }
  const std::vector<TokenLogprob>& tokens() const { return tokens_; }
  const std::vector<TokenLogprob>& prompt() const { return prompt_; }
  std::vector<TokenId> ids() const {
    std::vector<TokenId> ids;
    for (const TokenLogprob& token : tokens_) ids.push_back(token.id);
    return ids;
  }

 private:
  void end(const absl::Status& status, RequestResult result) {
    const std::lock_guard lock(mutex_);
    status_ = status;
    result_ = std::move(result);
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<TokenLogprob> tokens_, prompt_;
  RequestResult result_;
  std::optional<absl::Status> status_;
};

}  // namespace pkv
