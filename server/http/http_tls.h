// The certificates of an HTTP server. Included by the server alone: Boost's headers compile slowly.
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <chrono>
#include <memory>
#include <string>

#include "server/config/config.h"
#include "server/telemetry/log.h"

namespace pkv {

class HttpTls {
 public:
  // `files.cert` is set. Throws boost::system::system_error where the files are no good. `log`: null for none.
  HttpTls(TlsConfig files, const Log* log);

  // For the next connection. Looks at most once a second whether the files have changed; while what is there is no
  // good, the last that was stays in force, and the log says so once.
  std::shared_ptr<boost::asio::ssl::context> context();

 private:
  using Clock = std::chrono::steady_clock;
  std::shared_ptr<boost::asio::ssl::context> load() const;
  std::string state_of_files() const;

  void complain(const char* why) const;

  const TlsConfig files_;
  const Log* const log_;
  Clock::time_point looked_at_;
  std::string state_;    // of what is in force
  std::string refused_;  // that was no good
  std::shared_ptr<boost::asio::ssl::context> context_;
};

}  // namespace pkv
