#include "server/rpc/prepared_call.h"

#include <utility>

#include "kernels/status_macros.h"
#include "server/api/deadline_check.h"
#include "server/api/errors.h"
#include "server/api/gate.h"
#include "server/text/cancelled.h"

namespace pkv {
namespace {

// A larger reply keeps its place among those that wait until its caller has taken it.
constexpr size_t kSmallReply = 64 << 10;

class PreparedCall final : public grpc::ServerUnaryReactor {
 public:
  PreparedCall(ServerState& state, std::shared_ptr<ReplyWatch> watch, CallInfo info,
               grpc::CallbackServerContext& context, grpc::ByteBuffer& response, bool at_once)
      : state_(state),
        watch_(std::move(watch)),
        info_(std::move(info)),
        context_(context),
        response_(response),
        at_once_(at_once) {}

  void start(uint64_t bytes, ReplyMaker make) {
    const absl::Status status = outcome_of([&] { return begin(bytes, std::move(make)); });
    if (!status.ok()) finish(status);
  }
  void OnCancel() override { stop_.request_stop(); }
  void OnDone() override {
    watch_->end(context_);
    log_access(state_.log(), info_, {.status = status_, .code = status_code_name(status_.code())});
    delete this;
  }
  bool InternalInlineable() override { return at_once_; }  // as WatchedReply's

 private:
  absl::Status begin(uint64_t bytes, ReplyMaker make) {
    PKV_ASSIGN_OR_RETURN(place_, admit_call(state_, bytes, info_));
    if (!at_once_) return post_preparation(state_, bytes, info_, [this, make = std::move(make)] { prepare(make); });
    prepare(make);
    return absl::OkStatus();
  }

  void prepare(const ReplyMaker& make) {
    info_.listed->enter(CallPhase::kPreparing);
    finish(outcome_of([&]() -> absl::Status {
      if (context_.IsCancelled()) stop_.request_stop();  // OnCancel() comes later
      if (stop_.stop_requested()) return cancelled_by_caller();
      PKV_ASSIGN_OR_RETURN(response_, make(stop_.get_token()));
      const size_t bytes = response_.Length();
      return bytes <= kSmallReply || place_.take_bytes(bytes) ? absl::OkStatus() : queue_full(state_);
    }));
  }

  void finish(absl::Status status) {
    status_ = blame_deadline(std::move(status), info_.deadline);
    if (info_.listed != nullptr) info_.listed->enter(CallPhase::kDelivering);
    if (!status_.ok() || response_.Length() <= kSmallReply) place_.leave();
    if (info_.key != nullptr) info_.key->release();  // before the caller hears of the end, and may call again
    Finish(watch_->settle(status_, context_));       // from here on this may be gone
  }

  ServerState& state_;
  const std::shared_ptr<ReplyWatch> watch_;
  CallInfo info_;
  grpc::CallbackServerContext& context_;  // gRPC's, as the next, valid until the call is done
  grpc::ByteBuffer& response_;
  const bool at_once_;
  std::stop_source stop_;
  WaitingRoom::Place place_;
  absl::Status status_;
};

}  // namespace

grpc::ServerUnaryReactor* start_prepared_call(ServerState& state, std::shared_ptr<ReplyWatch> watch, CallInfo info,
                                              grpc::CallbackServerContext& context, grpc::ByteBuffer& response,
                                              uint64_t bytes, ReplyMaker make, bool at_once) {
  auto* call = new PreparedCall(state, std::move(watch), std::move(info), context, response, at_once);
  call->start(bytes, std::move(make));
  return call;
}

}  // namespace pkv
