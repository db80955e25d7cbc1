// The certificates of an HTTP server. Included by the server alone: Boost's headers compile slowly.
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <memory>
#include <utility>

#include "server/api/tls_files.h"

namespace pkv {

class HttpTls {
 public:
  explicit HttpTls(std::shared_ptr<const TlsFiles> files) : files_(std::move(files)) { context(); }

  // For the next connection. boost::system::system_error: OpenSSL has no memory for it.
  std::shared_ptr<boost::asio::ssl::context> context();

 private:
  const std::shared_ptr<const TlsFiles> files_;
  std::shared_ptr<const TlsPem> pem_;  // of the context
  std::shared_ptr<boost::asio::ssl::context> context_;
};

}  // namespace pkv
