#include "client/access.h"

#include <grpcpp/support/client_interceptor.h>

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace pkv::client {
namespace {

// Sends the key with every call of a channel. (Call credentials would do so over TLS only.)
class KeyInterceptor final : public grpc::experimental::Interceptor {
 public:
  explicit KeyInterceptor(std::string key) : key_(std::move(key)) {}
  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(grpc::experimental::InterceptionHookPoints::PRE_SEND_INITIAL_METADATA)) {
      methods->GetSendInitialMetadata()->insert({"authorization", absl::StrCat("Bearer ", key_)});
    }
    methods->Proceed();
  }

 private:
  const std::string key_;
};

class KeyInterceptorFactory final : public grpc::experimental::ClientInterceptorFactoryInterface {
 public:
  explicit KeyInterceptorFactory(std::string key) : key_(std::move(key)) {}
  grpc::experimental::Interceptor* CreateClientInterceptor(grpc::experimental::ClientRpcInfo*) override {
    return new KeyInterceptor(key_);
  }

 private:
  const std::string key_;
};

}  // namespace

std::shared_ptr<grpc::Channel> open_channel(const std::string& target, const Access& access,
                                            const grpc::ChannelArguments& arguments) {
  const std::shared_ptr<grpc::ChannelCredentials> credentials =
      access.tls ? grpc::SslCredentials({.pem_root_certs = access.ca,
                                         .pem_private_key = access.private_key,
                                         .pem_cert_chain = access.certificate})
                 : grpc::InsecureChannelCredentials();
  std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>> interceptors;
  if (!access.api_key.empty()) interceptors.push_back(std::make_unique<KeyInterceptorFactory>(access.api_key));
  return grpc::experimental::CreateCustomChannelWithInterceptors(target, credentials, arguments,
                                                                 std::move(interceptors));
}

}  // namespace pkv::client
