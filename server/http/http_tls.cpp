#include "server/http/http_tls.h"

#include <openssl/ssl.h>

#include <boost/asio/buffer.hpp>

namespace pkv {
namespace {

namespace asio = boost::asio;
using asio::ssl::context;

constexpr unsigned char kSessions[] = {'p', 'k', 'v'};

std::shared_ptr<context> make_context(const TlsPem& pem, bool wants_client_certificates) {
  auto made = std::make_shared<context>(context::tls_server);
  made->set_options(context::no_tlsv1 | context::no_tlsv1_1 | context::no_compression);
  made->use_certificate_chain(asio::buffer(pem.cert));
  made->use_private_key(asio::buffer(pem.key), context::pem);
  if (!wants_client_certificates) return made;
  made->add_certificate_authority(asio::buffer(pem.client_ca));
  made->set_verify_mode(asio::ssl::verify_peer | asio::ssl::verify_fail_if_no_peer_cert);
  // Without it OpenSSL fails sessions that are resumed.
  SSL_CTX_set_session_id_context(made->native_handle(), kSessions, sizeof(kSessions));
  return made;
}

}  // namespace

std::shared_ptr<context> HttpTls::context() {
  if (std::shared_ptr<const TlsPem> pem = files_->pem(); pem != pem_) {
    context_ = make_context(*pem, files_->wants_client_certificates());
    pem_ = std::move(pem);
  }
  return context_;
}

}  // namespace pkv
