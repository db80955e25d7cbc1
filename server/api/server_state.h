// What all services share: the model once it is loaded, the server's policies, its counters. Made in main, passed down.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/api/authenticator.h"
#include "server/api/call_registry.h"
#include "server/api/front_limits.h"
#include "server/api/policy_catalog.h"
#include "server/api/waiting_room.h"
#include "server/api/worker_pool.h"
#include "server/model/model.h"
#include "server/telemetry/latest.h"
#include "server/telemetry/log.h"
#include "server/telemetry/request_metrics.h"
#include "server/text/chat_template.h"
#include "server/text/tokenizer.h"

namespace pkv {

class Engine;

// A text that is there later than what it belongs to. Thread-safe.
class LateText {
 public:
  std::string get() const {
    const std::lock_guard lock(mutex_);
    return text_;
  }
  void set(std::string text) {
    const std::lock_guard lock(mutex_);
    text_ = std::move(text);
  }

 private:
  mutable std::mutex mutex_;
  std::string text_;
};

// A model that is loaded and being stepped. Everything pointed to outlives the services.
struct ServedModel {
  std::string id;
  // Of the model file, lower-case hexadecimal. Empty until it is computed.
  std::shared_ptr<LateText> sha256 = std::make_shared<LateText>();
  std::string device;  // Backend::description()
  KvDtype kv_dtype = KvDtype::kF16;
  ModelShape shape;
  uint64_t weight_bytes = 0;
  const Tokenizer* tokenizer = nullptr;
  const ChatTemplate* chat_template = nullptr;
  Engine* engine = nullptr;
  // Bytes of the longest tokens of its vocabulary, the longest first, kMaxTopLogprobs or all; empty: not known.
  std::vector<size_t> longest_tokens;
};

// Random numbers for whoever needs one: seeds and request ids. Thread-safe.
class RandomSource {
 public:
  explicit RandomSource(uint64_t seed) : generator_(seed) {}
  uint64_t next() {
    const std::lock_guard lock(mutex_);
    return generator_();
  }

 private:
  std::mutex mutex_;
  std::mt19937_64 generator_;
};

// What requests are counted by.
RequestMetrics::Labels request_labels();

class ServerState {
 public:
  ServerState(PolicyCatalog policies, const Log& log, uint64_t random_seed, const FrontLimits& limits = {});

  // The model is loaded, from now on until the server ends.
  void publish(const ServedModel* model) { model_.store(model, std::memory_order_release); }
  // Null while loading.
  const ServedModel* model() const { return model_.load(std::memory_order_acquire); }
  // UNAVAILABLE while loading; NOT_FOUND where `id` (a request's field `model`) is neither empty nor the model's.
  absl::StatusOr<const ServedModel*> find_model(const std::string& id) const;

  // As they are now; a reload sets others.
  std::shared_ptr<const PolicyCatalog> policies() const { return policies_.get(); }
  void set_policies(PolicyCatalog policies) {
    policies_.set(std::make_shared<const PolicyCatalog>(std::move(policies)));
  }
  Authenticator& authenticator() { return authenticator_; }
  const Authenticator& authenticator() const { return authenticator_; }
  RequestMetrics& metrics() { return metrics_; }
  const Log& log() const { return log_; }
  RandomSource& random() { return random_; }
  absl::Time started() const { return started_; }

  // As they are now; a reload sets others.
  std::shared_ptr<const FrontLimits> limits() const { return limits_.get(); }
  // preparation_threads stays what it was at first.
  void set_limits(const FrontLimits& limits);
  WaitingRoom& waiting() { return waiting_; }
  // Generation calls that there are, from their arrival until nothing of them is left: mailbox, buffers, the
  // transport's part.
  std::atomic<int64_t>& open_calls() { return open_calls_; }
  // The calls about text that were admitted and are not gone.
  CallRegistry& calls() { return calls_; }
  // Where requests are parsed, tokenised and planned: what may take milliseconds.
  WorkerPool& preparation() { return preparation_; }
  // Where the same is done with large messages, whose texts take seconds: none of the others waits for them.
  WorkerPool& large_preparation() { return large_preparation_; }
  // Where what the engine says is made into messages and given to the callers' transports.
  WorkerPool& delivery() { return delivery_; }
  // Where the same is done with messages that take long to make.
  WorkerPool& building() { return building_; }
  // Once no more calls come: ends the work on those that did, so that what they point to can be taken down.
  void end_work() {
    large_preparation_.stop();
    preparation_.stop();
    delivery_.stop();
    building_.stop();
  }

 private:
  std::atomic<const ServedModel*> model_ = nullptr;
  Latest<PolicyCatalog> policies_;
  Authenticator authenticator_;
  RequestMetrics metrics_;
  const Log& log_;
  RandomSource random_;
  absl::Time started_ = absl::Now();
  Latest<FrontLimits> limits_;
  WaitingRoom waiting_;
  std::atomic<int64_t> open_calls_ = 0;
  CallRegistry calls_;
  // Each makes work for those before it, so the last ends first.
  WorkerPool building_;
  WorkerPool delivery_;
  WorkerPool preparation_;
  WorkerPool large_preparation_;
};

}  // namespace pkv
