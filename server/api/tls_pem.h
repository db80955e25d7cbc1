// What the files of server.tls hold, and whether it is what a server needs. One judgement for gRPC, HTTP and the start.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/config/config.h"

namespace pkv {

// The contents of the files of a TlsConfig.
struct TlsPem {
  std::string cert;  // with those that lead to its authority
  std::string key;
  std::string client_ca;  // empty: clients need no certificate
  bool operator==(const TlsPem&) const = default;
};

// A FieldError about the key of the configuration whose file cannot be read.
absl::StatusOr<TlsPem> read_tls_pem(const TlsConfig& files);
// A FieldError about the key whose file, as it was read, is no such PEM file, is only a part of one, is the private key
// of another certificate, has expired or is not valid yet, or is what OpenSSL refuses here (a short key).
absl::Status check_tls_pem(const TlsPem& pem, const TlsConfig& files);

}  // namespace pkv
