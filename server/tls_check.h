// Whether the files of server.tls are what they are said to be: gRPC would only refuse every connection.
#pragma once

#include "absl/status/status.h"
#include "server/config/config.h"

namespace pkv {

// INVALID_ARGUMENT with place, key and file for one that cannot be read or is no such PEM file, a private key of
// another certificate, or a certificate that has expired. OK without TLS.
absl::Status check_tls(const Config& config);

}  // namespace pkv
