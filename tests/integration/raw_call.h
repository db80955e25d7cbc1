// Calls of the standard health and reflection services, whose proto files distributions do not install: the few bytes
// of their messages are written by hand.
#pragma once

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/support/http_client.h"

namespace pkv {

// grpc.health.v1.Health/Check: HealthCheckResponse.status (1 SERVING, 2 NOT_SERVING), or minus the error's code.
int check_health(const std::shared_ptr<grpc::Channel>& channel, const std::string& service);

// A call by the name of its method, one event at a time.
class RawCall {
 protected:
  // It is begun when this returns.
  RawCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& method);
  ~RawCall();
  bool wait();  // false: what was waited for failed
  // The one message of the client.
  void write_last(const std::string& message);

  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream_;
  grpc::Status status_;  // once Finish() is done, which may be at the end of this
};

// grpc.health.v1.Health/Watch, read message by message.
class HealthWatch : RawCall {
 public:
  HealthWatch(const std::shared_ptr<grpc::Channel>& channel, const std::string& service);
  ~HealthWatch();
  // The next status; 0: the stream has ended.
  int next();
  void cancel() { context_.TryCancel(); }
  const grpc::Status& status() const { return status_; }  // of a stream that has ended

 private:
  void finish();
  bool ended_ = false;
};

// A call to a port of 127.0.0.1 whose client takes no more than HTTP/2's first window of the reply, and leaves when
// this is destroyed.
class UnreadCall : RawCall {
 public:
  UnreadCall(int port, const std::string& method, const std::string& message);
  ~UnreadCall();
};

// A call of a client that lets the server send no byte of a message, which gRPC's own clients always do.
class ClosedWindowCall {
 public:
  ClosedWindowCall(int port, const std::string& method, const std::string& message);

 private:
  test::HttpConnection connection_;
};

// A call of the reflection service that asks nothing.
class OpenReflection : RawCall {
 public:
  explicit OpenReflection(const std::shared_ptr<grpc::Channel>& channel);
  ~OpenReflection();
  // OK while it is open.
  grpc::StatusCode code();

 private:
  bool ended_ = false;
};

// Names by grpc.reflection.v1alpha.ServerReflection; empty where it is not offered.
std::vector<std::string> list_services(const std::shared_ptr<grpc::Channel>& channel);

// Names of a service's methods by reflection; empty where it is not described.
std::vector<std::string> describe_service(const std::shared_ptr<grpc::Channel>& channel, const std::string& name);

}  // namespace pkv
