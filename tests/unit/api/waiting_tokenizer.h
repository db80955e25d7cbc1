// Tokenises until it is told to stop, as a very long text would be.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string_view>

#include "server/model/gguf.h"
#include "server/text/cancelled.h"
#include "server/text/vocabulary_tokenizer.h"

namespace pkv::test {

class WaitingTokenizer final : public VocabularyTokenizer {
 public:
  explicit WaitingTokenizer(const GgufFile& file) : WaitingTokenizer(*load_vocabulary(file, /*add_bos=*/false)) {}
  bool has_begun() const {
    const std::lock_guard lock(mutex_);
    return begun_;
  }
  void wait_until_begun() const {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return begun_; });
  }
  // Once it has begun: waits until it is told to stop. False: nobody does.
  bool is_stopped() const {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return stopped_.has_value(); });
    return *stopped_;
  }

 private:
  static constexpr std::chrono::seconds kPatience{20};

  explicit WaitingTokenizer(const Vocabulary& vocabulary) : VocabularyTokenizer(vocabulary, vocabulary.texts) {}
  bool adds_leading_space() const override { return false; }
  absl::Status encode_run(std::string_view, uint32_t, const std::stop_token& stop, EncodedText&) const override {
    std::unique_lock lock(mutex_);
    begun_ = true;
    changed_.notify_all();
    changed_.wait_for(lock, stop, kPatience, [] { return false; });
    stopped_ = stop.stop_requested();
    changed_.notify_all();
    return cancelled_by_caller();
  }

  mutable std::mutex mutex_;
  mutable std::condition_variable_any changed_;
  mutable bool begun_ = false;
  mutable std::optional<bool> stopped_;
};

}  // namespace pkv::test
