#include "server/rpc/refused_stream.h"

namespace pkv {
namespace {

class RefusedStream final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  explicit RefusedStream(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

}  // namespace

grpc::ServerWriteReactor<grpc::ByteBuffer>* refuse_stream(const grpc::Status& status) {
  return new RefusedStream(status);
}

}  // namespace pkv
