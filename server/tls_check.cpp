#include "server/tls_check.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"

namespace pkv {
namespace {

using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
using PrivateKey = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using File = std::unique_ptr<BIO, decltype(&BIO_free)>;

// One key of the configuration and the file it names.
class Named {
 public:
  Named(const Config& config, std::string_view key, const std::string& file)
      : config_(config), key_(key), file_(file) {}
  absl::Status refuse(const std::string& what) const {
    return absl::InvalidArgumentError(config_.about(key_, absl::StrCat(file_, ": ", what)));
  }
  absl::StatusOr<File> open() const {
    errno = 0;
    File file(BIO_new_file(file_.c_str(), "r"), BIO_free);
    if (file == nullptr) return refuse(absl::StrCat("cannot be read: ", std::strerror(errno)));
    return file;
  }

 private:
  const Config& config_;
  const std::string_view key_;
  const std::string& file_;
};

// The first of the file.
absl::StatusOr<Certificate> read_certificate(const Named& named) {
  PKV_ASSIGN_OR_RETURN(const File file, named.open());
  Certificate certificate(PEM_read_bio_X509(file.get(), nullptr, nullptr, nullptr), X509_free);
  if (certificate == nullptr) return named.refuse("holds no certificate in PEM");
  return certificate;
}

absl::StatusOr<PrivateKey> read_private_key(const Named& named) {
  PKV_ASSIGN_OR_RETURN(const File file, named.open());
  // Nobody could be asked for a passphrase.
  const auto no_passphrase = [](char*, int, int, void*) { return -1; };
  PrivateKey key(PEM_read_bio_PrivateKey(file.get(), nullptr, no_passphrase, nullptr), EVP_PKEY_free);
  if (key == nullptr) return named.refuse("holds no private key in PEM without a passphrase");
  return key;
}

std::string time_text(const ASN1_TIME* time) {
  const File text(BIO_new(BIO_s_mem()), BIO_free);
  ASN1_TIME_print(text.get(), time);
  char* begin = nullptr;
  const long size = BIO_get_mem_data(text.get(), &begin);
  return std::string(begin, static_cast<size_t>(size));
}

}  // namespace

absl::Status check_tls(const Config& config) {
  const TlsConfig& tls = config.server.tls;
  if (tls.cert.empty()) return absl::OkStatus();
  const Named cert(config, "server.tls.cert", tls.cert), key(config, "server.tls.key", tls.key);
  PKV_ASSIGN_OR_RETURN(const Certificate certificate, read_certificate(cert));
  PKV_ASSIGN_OR_RETURN(const PrivateKey private_key, read_private_key(key));
  if (X509_check_private_key(certificate.get(), private_key.get()) != 1) {
    return key.refuse(absl::StrCat("is not the private key of the certificate in ", tls.cert));
  }
  if (const ASN1_TIME* end = X509_get0_notAfter(certificate.get()); X509_cmp_current_time(end) < 0) {
    return cert.refuse(absl::StrCat("the certificate has expired, on ", time_text(end)));
  }
  if (tls.client_ca.empty()) return absl::OkStatus();
  return read_certificate(Named(config, "server.tls.client_ca", tls.client_ca)).status();
}

}  // namespace pkv
