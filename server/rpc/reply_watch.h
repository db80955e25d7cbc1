// Bounds the time that a message may be on its way to its client. One that stops reading while its connection lives
// would keep the call and the message for good: gRPC has no such limit.
#pragma once

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/api/server_state.h"
#include "server/rpc/grpc_status.h"

namespace pkv {

// Shared with the calls, of which gRPC may let go after their service is gone.
class ReplyWatch {
 public:
  // Calls whose message is under way for longer than FrontLimits::max_unread_seconds are cancelled and counted as
  // SLOW_READER.
  explicit ReplyWatch(ServerState& state);
  ~ReplyWatch();

  // A message of the call is about to be given to gRPC. `late` is called just before the call is cancelled; it must not
  // call this.
  void begin(grpc::CallbackServerContext& context, std::function<void()> late = {});
  // The same of a call's end: what is sent of `status`. Where there is no memory for it, as soon as there is.
  grpc::Status settle(const absl::Status& status, grpc::CallbackServerContext& context);
  // It was taken, or the call is done. From then on neither `context` nor `late` is touched.
  void end(grpc::CallbackServerContext& context);

 private:
  struct UnderWay {
    absl::Time since;
    std::function<void()> late;
  };
  absl::Duration limit() const { return absl::Seconds(state_.limits()->max_unread_seconds); }
  void run();
  void cancel_late();

  ServerState& state_;
  std::recursive_mutex mutex_;  // end() may be called from within cancel_late()
  std::condition_variable_any changed_;
  std::unordered_map<grpc::CallbackServerContext*, UnderWay> under_way_;
  bool stopped_ = false;
  std::thread thread_;
};

// The one reply of a call that is answered without the engine.
class WatchedReply final : public grpc::ServerUnaryReactor {
 public:
  WatchedReply(std::shared_ptr<ReplyWatch> watch, grpc::CallbackServerContext& context)
      : watch_(std::move(watch)), context_(context) {}
  // Once. Nothing of the call may be touched afterwards.
  void reply(const absl::Status& status) { Finish(watch_->settle(status, context_)); }
  void OnDone() override {
    watch_->end(context_);
    delete this;
  }
  // OnDone() is soon over and needs no thread of its own. The method is gRPC's own and no promise of its; without it
  // gRPC changes threads twice a call, which takes longer than all the rest of a small one.
  bool InternalInlineable() override { return true; }

 private:
  const std::shared_ptr<ReplyWatch> watch_;
  grpc::CallbackServerContext& context_;
};

// The reactor of a call whose reply is there already.
inline grpc::ServerUnaryReactor* reply_now(std::shared_ptr<ReplyWatch> watch, grpc::CallbackServerContext& context,
                                           const absl::Status& status) {
  auto* reactor = new WatchedReply(std::move(watch), context);
  reactor->reply(status);
  return reactor;
}

}  // namespace pkv
