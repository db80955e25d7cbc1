// Calls of the standard health and reflection services, whose proto files distributions do not install: the few bytes
// of their messages are written by hand.
#pragma once

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <vector>

namespace pkv {

// grpc.health.v1.Health/Check: HealthCheckResponse.status (1 SERVING, 2 NOT_SERVING), or minus the error's code.
int check_health(const std::shared_ptr<grpc::Channel>& channel, const std::string& service);

// grpc.health.v1.Health/Watch, read message by message.
class HealthWatch {
 public:
  HealthWatch(const std::shared_ptr<grpc::Channel>& channel, const std::string& service);
  ~HealthWatch();
  // The next status; 0: the stream has ended.
  int next();
  void cancel() { context_.TryCancel(); }
  const grpc::Status& status() const { return status_; }  // of a stream that has ended

 private:
  bool wait();
  void finish();
  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream_;
  grpc::Status status_;
  bool ended_ = false;
};

// A call to a port of 127.0.0.1 whose client takes no more than HTTP/2's first window of the reply, and leaves when
// this is destroyed.
class UnreadCall {
 public:
  UnreadCall(int port, const std::string& method, const std::string& message);
  ~UnreadCall();

 private:
  bool wait();
  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream_;
};

// A call of the reflection service that asks nothing.
class OpenReflection {
 public:
  explicit OpenReflection(const std::shared_ptr<grpc::Channel>& channel);
  ~OpenReflection();
  // OK while it is open.
  grpc::StatusCode code();

 private:
  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream_;
  grpc::Status status_;
  bool ended_ = false;
};

// Names by grpc.reflection.v1alpha.ServerReflection; empty where it is not offered.
std::vector<std::string> list_services(const std::shared_ptr<grpc::Channel>& channel);

// Names of a service's methods by reflection; empty where it is not described.
std::vector<std::string> describe_service(const std::shared_ptr<grpc::Channel>& channel, const std::string& name);

}  // namespace pkv
