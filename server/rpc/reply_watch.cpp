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

ReplyWatch::ReplyWatch(ServerState& state) : state_(state), thread_([this] { run(); }) {}

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

grpc::Status ReplyWatch::settle(const absl::Status& status, grpc::CallbackServerContext& context) {
  return once_there_is_memory([&] {
    begin(context);
    return end_status(status, context);
  });
}

void ReplyWatch::end(grpc::CallbackServerContext& context) {
  const std::lock_guard lock(mutex_);
  under_way_.erase(&context);
}

void ReplyWatch::run() {
  const auto tick = [this] { return absl::ToChronoNanoseconds(std::min(kMaxTick, limit() / kTicksOfLimit)); };
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, tick(), [this] { return stopped_; })) cancel_late();
}

// With the lock: a call that is done waits in end() until its context is not needed any more. From within TryCancel()
// gRPC may call OnDone() of inlineable reactors, and so end(), for any of the calls: hence each is looked for anew.
void ReplyWatch::cancel_late() try {
  const absl::Time begun_by = absl::Now() - limit();
  const auto is_late = [&](const auto& call) { return call.second.since <= begun_by; };
  while (true) {
    const auto found = std::ranges::find_if(under_way_, is_late);
    if (found == under_way_.end()) return;
    if (found->second.late) found->second.late();
    state_.metrics().count_rejection(kSlowReader);
    grpc::CallbackServerContext* context = found->first;
    under_way_.erase(found);
    context->TryCancel();
  }
} catch (const std::bad_alloc&) {  // the rest the next time
}

}  // namespace pkv
