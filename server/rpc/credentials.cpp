#include "server/rpc/credentials.h"

#include <grpc/grpc_security.h>
#include <grpcpp/security/server_credentials.h>

#include <string>
#include <utility>

namespace pkv {
namespace {

// gRPC's core asks for certificates at each connection and keeps those it has where there are no new ones. Of its C++
// only a provider that watches the files itself can change them, and that one lets go of good ones for bad.
class TlsCredentials final : public grpc::ServerCredentials {
 public:
  explicit TlsCredentials(std::shared_ptr<const TlsFiles> files)
      : files_(std::move(files)),
        credentials_(grpc_ssl_server_credentials_create_with_options(
            grpc_ssl_server_credentials_create_options_using_config_fetcher(
                files_->wants_client_certificates() ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                                                    : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE,
                fetch, this))) {}
  ~TlsCredentials() override { grpc_server_credentials_release(credentials_); }
  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }
  static grpc_ssl_certificate_config_reload_status fetch(void* self, grpc_ssl_server_certificate_config** config) {
    auto& credentials = *static_cast<TlsCredentials*>(self);
    std::shared_ptr<const TlsPem> pem = credentials.files_->pem();
    if (pem == credentials.given_) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    const grpc_ssl_pem_key_cert_pair pair{.private_key = pem->key.c_str(), .cert_chain = pem->cert.c_str()};
    // Some authority has to be there, asked for or not.
    const std::string& authority = credentials.files_->wants_client_certificates() ? pem->client_ca : pem->cert;
    *config = grpc_ssl_server_certificate_config_create(authority.c_str(), &pair, 1);
    credentials.given_ = std::move(pem);
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
  }

  const std::shared_ptr<const TlsFiles> files_;
  std::shared_ptr<const TlsPem> given_;  // to gRPC
  grpc_server_credentials* const credentials_;
};

}  // namespace

std::shared_ptr<grpc::ServerCredentials> server_credentials(std::shared_ptr<const TlsFiles> files) {
  if (files == nullptr) return grpc::InsecureServerCredentials();
  return std::make_shared<TlsCredentials>(std::move(files));
}

}  // namespace pkv
