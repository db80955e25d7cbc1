#include "server/tls_check.h"

#include <string>

#include "server/status/field_error.h"

namespace pkv {

absl::StatusOr<std::optional<TlsPem>> configured_tls(const Config& config) {
  const TlsConfig& files = config.server.tls;
  if (files.cert.empty()) return std::nullopt;
  absl::StatusOr<TlsPem> pem = read_tls_pem(files);
  const absl::Status good = pem.ok() ? check_tls_pem(*pem, files) : pem.status();
  if (good.ok()) return *std::move(pem);
  const FieldError wrong = *field_error_of(good);
  return absl::InvalidArgumentError(config.about(wrong.field, wrong.description));
}

}  // namespace pkv
