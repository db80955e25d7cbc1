#include "server/http/http_tls.h"

#include <openssl/ssl.h>
#include <sys/stat.h>

#include <boost/system/system_error.hpp>
#include <utility>

#include "absl/strings/str_cat.h"

namespace pkv {
namespace {

namespace ssl = boost::asio::ssl;

constexpr std::chrono::seconds kLookInterval{1};
constexpr unsigned char kSessions[] = {'p', 'k', 'v'};

}  // namespace

HttpTls::HttpTls(TlsConfig files, const Log* log)
    : files_(std::move(files)), log_(log), looked_at_(Clock::now()), state_(state_of_files()), context_(load()) {}

std::shared_ptr<ssl::context> HttpTls::context() {
  if (Clock::now() - looked_at_ < kLookInterval) return context_;
  looked_at_ = Clock::now();
  if (std::string state = state_of_files(); state != state_) {
    try {
      context_ = load();
      state_ = std::move(state);
    } catch (const boost::system::system_error& error) {  // half written, or the two do not fit together yet
      if (state != refused_) complain(error.what());
      refused_ = std::move(state);
    }
  }
  return context_;
}

void HttpTls::complain(const char* why) const {
  if (log_ == nullptr) return;
  log_->error("the new TLS files are no good, the ones before stay in force",
              {{"cert", files_.cert}, {"key", files_.key}, {"client_ca", files_.client_ca}, {"error", why}});
}

std::shared_ptr<ssl::context> HttpTls::load() const {
  auto context = std::make_shared<ssl::context>(ssl::context::tls_server);
  context->set_options(ssl::context::no_tlsv1 | ssl::context::no_tlsv1_1 | ssl::context::no_compression);
  context->use_certificate_chain_file(files_.cert);
  context->use_private_key_file(files_.key, ssl::context::pem);
  if (!files_.client_ca.empty()) {
    context->load_verify_file(files_.client_ca);
    context->set_verify_mode(ssl::verify_peer | ssl::verify_fail_if_no_peer_cert);
    // Without it OpenSSL fails sessions that are resumed.
    SSL_CTX_set_session_id_context(context->native_handle(), kSessions, sizeof(kSessions));
  }
  return context;
}

// Another text when any of them was replaced or written.
std::string HttpTls::state_of_files() const {
  std::string state;
  for (const std::string* path : {&files_.cert, &files_.key, &files_.client_ca}) {
    struct stat file = {};
    if (path->empty() || stat(path->c_str(), &file) != 0) continue;
    absl::StrAppend(&state, file.st_dev, ":", file.st_ino, ":", file.st_size, ":", file.st_mtim.tv_sec, ".",
                    file.st_mtim.tv_nsec, " ");
  }
  return state;
}

}  // namespace pkv
