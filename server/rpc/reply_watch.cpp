#include "server/rpc/reply_watch.h"

#include <algorithm>
#include <chrono>
#include <new>
#include <utility>

#include "absl/time/clock.h"
#include "server/api/errors.h"

namespace pkv {
namespace {

// How often it is looked, at most and in parts of the limit.
constexpr absl::Duration kMaxTick = absl::Seconds(1);
constexpr int kTicksOfLimit = 4;

}  // namespace

ReplyWatch::ReplyWatch(absl::Duration limit, RequestMetrics& metrics)
    : limit_(limit), metrics_(metrics), thread_([this] { run(); }) {}

ReplyWatch::~ReplyWatch() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void ReplyWatch::begin(grpc::CallbackServerContext& context, std::function<void()> late) {
  const std::lock_guard lock(mutex_);
  under_way_[&context] = {.since = absl::Now(), .late = std::move(late)};
}

void ReplyWatch::end(grpc::CallbackServerContext& context) {
  const std::lock_guard lock(mutex_);
  under_way_.erase(&context);
}

void ReplyWatch::run() {
  const auto tick = absl::ToChronoNanoseconds(std::min(kMaxTick, limit_ / kTicksOfLimit));
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, tick, [this] { return stopped_; })) cancel_late();
}

// With the lock: a call that is done waits in end() until its context is not needed any more. gRPC calls no reactor
// from within TryCancel().
void ReplyWatch::cancel_late() {
  const absl::Time begun_by = absl::Now() - limit_;
  for (auto it = under_way_.begin(); it != under_way_.end();) {
    if (it->second.since > begun_by) {
      ++it;
      continue;
    }
    try {
      if (it->second.late) it->second.late();
    } catch (const std::bad_alloc&) {  // the next time
      ++it;
      continue;
    }
    metrics_.count_rejection(kSlowReader);
    it->first->TryCancel();
    it = under_way_.erase(it);
  }
}

}  // namespace pkv
