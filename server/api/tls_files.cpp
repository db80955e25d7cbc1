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
  if (found == seen_) return;
  const absl::Status good = found.ok() ? check_tls_pem(*found, files_) : found.status();
  if (good.ok()) {
    in_force_.set(std::make_shared<const TlsPem>(*found));
    log_.info("the new TLS files are in force for new connections", {{"cert", files_.cert}});
  } else {
    log_.error("the new TLS files are no good, those before stay in force", {{"error", std::string(good.message())}});
  }
  seen_ = std::move(found);
}

}  // namespace pkv
