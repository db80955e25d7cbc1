#include "server/api/tls_files.h"

#include <string>
#include <utility>

namespace pkv {

TlsFiles::TlsFiles(TlsConfig files, TlsPem pem, const Log& log)
    : files_(std::move(files)), log_(log), seen_(std::move(pem)) {
  in_force_.set(std::make_shared<const TlsPem>(*seen_));
}

void TlsFiles::look() {
  absl::StatusOr<TlsPem> found = read_tls_pem(files_);
  const bool same = found == seen_;
  if (same && fault_.ok()) return;
  // What had a fault is judged again: a certificate may be valid by now.
  absl::Status fault = found.ok() ? check_tls_pem(*found, files_) : found.status();
  if (fault.ok()) {
    if (*found != *in_force_.get()) in_force_.set(std::make_shared<const TlsPem>(*found));
    log_.info("the TLS files are good and in force for new connections", {{"cert", files_.cert}});
  } else if (!same || fault != fault_) {
    log_.error("the new TLS files are no good, those before stay in force", {{"error", std::string(fault.message())}});
  }
  seen_ = std::move(found);
  fault_ = std::move(fault);
}

}  // namespace pkv
