// The certificates in force, which follow the files of server.tls while those are good. Thread-safe but for look().
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "server/api/tls_pem.h"
#include "server/telemetry/latest.h"
#include "server/telemetry/log.h"

namespace pkv {

class TlsFiles {
 public:
  // `pem`: what was read from `files`, and is good. `log` must outlive it.
  TlsFiles(TlsConfig files, TlsPem pem, const Log& log);

  // For the next connection. The same object as before where nothing is new.
  std::shared_ptr<const TlsPem> pem() const { return in_force_.get(); }
  bool wants_client_certificates() const { return !files_.client_ca.empty(); }

  // Puts what the files hold in force. Where that is no good, what is in force stays, and the log says what is wrong:
  // once, until they hold something else or are no good for another reason. One thread at a time.
  void look();

 private:
  const TlsConfig files_;
  const Log& log_;
  Latest<TlsPem> in_force_;
  absl::StatusOr<TlsPem> seen_;  // by the last look, good or not
  absl::Status fault_;           // of that
};

}  // namespace pkv
