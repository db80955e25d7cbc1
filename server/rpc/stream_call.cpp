#include "server/rpc/stream_call.h"

#include <utility>

#include "server/api/conversion.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/wire.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;
using WriteReactor = grpc::ServerWriteReactor<grpc::ByteBuffer>;

// Nothing of its reactor may be touched after Finish: gRPC deletes it.
class StreamCall final : public GenerationCall {
 public:
  StreamCall(ServerState& state, std::shared_ptr<ReplyWatch> watch, CallInfo info, grpc::CallbackServerContext& context)
      : GenerationCall(state, std::move(info)), watch_(std::move(watch)), context_(context) {}
  void attach(WriteReactor* reactor) { reactor_ = reactor; }
  void write_done(bool ok) {
    watch_->end(context_);
    sent(ok);
  }
  void done() {
    watch_->end(context_);
    log_end();
  }

 private:
  void send_start() override {
    pb::GenerateStreamResponse message;
    pb::StreamStart& start = *message.mutable_start();
    start.set_request_id(request().id);
    start.set_model(served().id);
    start.set_prompt_tokens(static_cast<uint32_t>(request().prompt.size()));
    *start.mutable_effective_policy() = to_proto(request().policy);
    start.set_seed(request().sampling.seed);
    write(message);
  }
  void send_progress(double prefill_done) override {
    pb::GenerateStreamResponse message;
    message.mutable_progress()->set_prefill_done(prefill_done);
    write(message);
  }
  void send_piece(OutputAssembler::Piece piece) override {
    pb::GenerateStreamResponse message;
    set_piece(std::move(piece), *served().tokenizer, *message.mutable_delta());
    write(message);
  }
  void send_end(OutputAssembler::Piece) override {
    pb::GenerateStreamResponse message;
    pb::StreamEnd& end = *message.mutable_end();
    set_ending(ending(), end, *end.add_choices());
    buffer_ = serialize_message(message);
    watch();
    reactor_->StartWriteAndFinish(&buffer_, grpc::WriteOptions(), grpc::Status::OK);
  }
  void send_error() override {
    watch();
    reactor_->Finish(end_status(error(), context_));
  }

  void write(const pb::GenerateStreamResponse& message) {
    buffer_ = serialize_message(message);
    watch();
    reactor_->StartWrite(&buffer_);
  }
  void watch() {
    watch_->begin(context_, [this] { read_too_slowly(); });
  }

  const std::shared_ptr<ReplyWatch> watch_;
  grpc::CallbackServerContext& context_;
  WriteReactor* reactor_ = nullptr;
  grpc::ByteBuffer buffer_;  // of the write under way
};

class StreamReactor final : public WriteReactor {
 public:
  explicit StreamReactor(std::shared_ptr<StreamCall> call) : call_(std::move(call)) {}
  void OnWriteDone(bool ok) override { call_->write_done(ok); }
  void OnCancel() override { call_->cancel(); }
  void OnDone() override {
    call_->done();
    delete this;
  }

 private:
  std::shared_ptr<StreamCall> call_;
};

}  // namespace

WriteReactor* start_stream_call(ServerState& state, std::shared_ptr<ReplyWatch> watch, CallInfo info,
                                grpc::CallbackServerContext& context, uint64_t bytes, GenerationCall::Reader read) {
  auto call = std::make_shared<StreamCall>(state, std::move(watch), std::move(info), context);
  auto* reactor = new StreamReactor(call);
  call->attach(reactor);
  call->start(bytes, std::move(read));
  return reactor;
}

}  // namespace pkv
