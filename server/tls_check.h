// The files of server.tls, at the start: gRPC would only refuse every connection.
#pragma once

#include <optional>

#include "absl/status/statusor.h"
#include "server/api/tls_pem.h"
#include "server/config/config.h"

namespace pkv {

// None without TLS. INVALID_ARGUMENT with place, key and file where they are no good (check_tls_pem()).
absl::StatusOr<std::optional<TlsPem>> configured_tls(const Config& config);

}  // namespace pkv
