#include "server/rpc/refused_stream.h"

#include "server/rpc/grpc_status.h"

namespace pkv {
namespace {

class RefusedStream final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  explicit RefusedStream(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

}  // namespace

grpc::ServerWriteReactor<grpc::ByteBuffer>* refuse_stream(const absl::Status& status,
                                                          grpc::CallbackServerContext& context) {
  return new RefusedStream(end_status(status, context));
}

}  // namespace pkv
