#include "server/rpc/stream_call.h"

#include <utility>

#include "server/rpc/wire.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;
using WriteReactor = grpc::ServerWriteReactor<grpc::ByteBuffer>;

// Log-probabilities of a long prompt are split, so that a message stays far below what clients accept (4 MiB by
// default).
constexpr size_t kMaxTokensOfDelta = 1024;
// Progress is told in steps of at least this share.
constexpr double kProgressStep = 0.01;

class StreamCall final : public GenerationCall {
 public:
  using GenerationCall::GenerationCall;

  // Before submit: the engine may start at once.
  void attach(WriteReactor* reactor) { reactor_ = reactor; }

  void write_done(bool ok) {
    bool lost = false;
    {
      const std::lock_guard lock(mutex_);
      writing_ = false;
      broken_ = broken_ || !ok;
      lost = broken_ && !result_ && error_.ok();
      advance();
    }
    if (lost) cancel();
  }

 private:
  // Nothing of this object's reactor may be touched after Finish: gRPC deletes it.
  void advance() override {
    if (writing_ || finished_) return;
    if (!error_.ok()) {
      finished_ = true;
      reactor_->Finish(close(error_));
    } else if (broken_) {
      if (result_) {
        finished_ = true;
        reactor_->Finish(close(absl::CancelledError("the client stopped reading")));
      }
    } else if (started_ && !start_sent_) {
      start_sent_ = true;
      write(start_message());
    } else if (!output_.has_tokens() && progress_ >= progress_sent_ + kProgressStep) {
      progress_sent_ = progress_;
      pb::GenerateStreamResponse message;
      message.mutable_progress()->set_prefill_done(progress_);
      write(message);
    } else if (output_.ready()) {
      pb::GenerateStreamResponse message;
      set_piece(output_.take(kMaxTokensOfDelta), *served_.tokenizer, *message.mutable_delta());
      write(message);
    } else if (result_) {
      finished_ = true;
      buffer_ = serialize_message(end_message());
      reactor_->StartWriteAndFinish(&buffer_, grpc::WriteOptions(), close(absl::OkStatus()));
    }
  }

  void write(const pb::GenerateStreamResponse& message) {
    writing_ = true;
    buffer_ = serialize_message(message);
    reactor_->StartWrite(&buffer_);
  }

  pb::GenerateStreamResponse end_message() const {
    pb::GenerateStreamResponse message;
    pb::StreamEnd& end = *message.mutable_end();
    set_ending(end, *end.add_choices());
    return message;
  }

  WriteReactor* reactor_ = nullptr;
  // Guarded by mutex_, as the base's.
  grpc::ByteBuffer buffer_;  // of the write in flight
  bool writing_ = false;
  bool start_sent_ = false;
  bool broken_ = false;  // a write failed
  bool finished_ = false;
  double progress_sent_ = 0;
};

class StreamReactor final : public WriteReactor {
 public:
  explicit StreamReactor(std::shared_ptr<StreamCall> call) : call_(std::move(call)) {}
  void OnWriteDone(bool ok) override { call_->write_done(ok); }
  void OnCancel() override { call_->cancel(); }
  void OnDone() override {
    call_->log_end();
    delete this;
  }

 private:
  std::shared_ptr<StreamCall> call_;
};

}  // namespace

WriteReactor* start_stream_call(const ServedModel& served, ServerState& state, ValidRequest valid, CallInfo info,
                                grpc::CallbackServerContext& context) {
  auto call = std::make_shared<StreamCall>(served, state, std::move(valid), std::move(info));
  auto* reactor = new StreamReactor(call);
  call->attach(reactor);
  GenerationCall::submit(call, context);
  return reactor;
}

}  // namespace pkv
