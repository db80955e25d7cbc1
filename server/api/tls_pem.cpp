#include "server/api/tls_pem.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "server/status/field_error.h"

namespace pkv {
namespace {

using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
using PrivateKey = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using Text = std::unique_ptr<BIO, decltype(&BIO_free)>;
using Context = std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)>;

// One key of the configuration and the file it names.
struct Named {
  std::string_view key;
  const std::string& file;
  absl::Status refuse(const std::string& what) const {
    return field_error(std::string(key), absl::StrCat(file, ": ", what));
  }
};
Named cert_of(const TlsConfig& files) { return {"server.tls.cert", files.cert}; }
Named key_of(const TlsConfig& files) { return {"server.tls.key", files.key}; }
Named client_ca_of(const TlsConfig& files) { return {"server.tls.client_ca", files.client_ca}; }

absl::StatusOr<std::string> read_file(const Named& named) {
  const std::unique_ptr<FILE, decltype(&std::fclose)> file(std::fopen(named.file.c_str(), "r"), std::fclose);
  std::string text;
  std::array<char, 4096> part;
  while (file != nullptr && std::feof(file.get()) == 0 && std::ferror(file.get()) == 0) {
    text.append(part.data(), std::fread(part.data(), 1, part.size(), file.get()));
  }
  if (file == nullptr || std::ferror(file.get()) != 0) {
    return named.refuse(absl::StrCat("cannot be read: ", std::strerror(errno)));
  }
  return text;
}

// Null means that OpenSSL found no memory.
template <typename T>
T* existing(T* object) {
  if (object == nullptr) throw std::bad_alloc();
  return object;
}

Text text_of(const std::string& pem) {
  return {existing(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()))), BIO_free};
}

// What OpenSSL has just refused, and why.
std::string last_error() {
  const char* reason = ERR_reason_error_string(ERR_peek_last_error());
  return reason == nullptr ? "no reason is given" : reason;
}

// All of the file, in its order.
absl::StatusOr<std::vector<Certificate>> parse_certificates(const std::string& pem, const Named& named) {
  const Text text = text_of(pem);
  std::vector<Certificate> certificates;
  while (X509* next = PEM_read_bio_X509(text.get(), nullptr, nullptr, nullptr)) {
    certificates.emplace_back(next, X509_free);
  }
  if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) {
    return named.refuse(absl::StrCat("certificate ", certificates.size() + 1, " cannot be read: ", last_error()));
  }
  ERR_clear_error();  // that was the end of the file
  if (certificates.empty()) return named.refuse("holds no certificate in PEM");
  return certificates;
}

absl::StatusOr<PrivateKey> parse_private_key(const std::string& pem, const Named& named) {
  // Nobody could be asked for a passphrase.
  const auto no_passphrase = [](char*, int, int, void*) { return -1; };
  PrivateKey key(PEM_read_bio_PrivateKey(text_of(pem).get(), nullptr, no_passphrase, nullptr), EVP_PKEY_free);
  if (key == nullptr) return named.refuse("holds no private key in PEM without a passphrase");
  return key;
}

std::string time_text(const ASN1_TIME* time) {
  const Text text(existing(BIO_new(BIO_s_mem())), BIO_free);
  ASN1_TIME_print(text.get(), time);
  char* begin = nullptr;
  const long size = BIO_get_mem_data(text.get(), &begin);
  return std::string(begin, static_cast<size_t>(size));
}

// Whether a server may show them here: keys and signatures are long enough.
bool can_be_shown(const std::vector<Certificate>& chain) {
  const Context context(existing(SSL_CTX_new(TLS_server_method())), SSL_CTX_free);
  if (SSL_CTX_use_certificate(context.get(), chain.front().get()) != 1) return false;
  for (size_t i = 1; i < chain.size(); ++i) {
    if (SSL_CTX_add1_chain_cert(context.get(), chain[i].get()) != 1) return false;
  }
  return true;
}

absl::Status check(const TlsPem& pem, const TlsConfig& files) {
  const Named cert = cert_of(files), key = key_of(files);
  PKV_ASSIGN_OR_RETURN(const std::vector<Certificate> chain, parse_certificates(pem.cert, cert));
  PKV_ASSIGN_OR_RETURN(const PrivateKey private_key, parse_private_key(pem.key, key));
  if (X509_check_private_key(chain.front().get(), private_key.get()) != 1) {
    return key.refuse(absl::StrCat("is not the private key of the certificate in ", files.cert));
  }
  if (const ASN1_TIME* end = X509_get0_notAfter(chain.front().get()); X509_cmp_current_time(end) < 0) {
    return cert.refuse(absl::StrCat("the certificate has expired, on ", time_text(end)));
  }
  if (const ASN1_TIME* begin = X509_get0_notBefore(chain.front().get()); X509_cmp_current_time(begin) > 0) {
    return cert.refuse(absl::StrCat("the certificate is not valid before ", time_text(begin)));
  }
  if (!can_be_shown(chain)) return cert.refuse(absl::StrCat("OpenSSL refuses it: ", last_error()));
  if (files.client_ca.empty()) return absl::OkStatus();
  return parse_certificates(pem.client_ca, client_ca_of(files)).status();
}

}  // namespace

absl::StatusOr<TlsPem> read_tls_pem(const TlsConfig& files) {
  TlsPem pem;
  PKV_ASSIGN_OR_RETURN(pem.cert, read_file(cert_of(files)));
  PKV_ASSIGN_OR_RETURN(pem.key, read_file(key_of(files)));
  if (files.client_ca.empty()) return pem;
  PKV_ASSIGN_OR_RETURN(pem.client_ca, read_file(client_ca_of(files)));
  return pem;
}

absl::Status check_tls_pem(const TlsPem& pem, const TlsConfig& files) {
  ERR_clear_error();
  absl::Status status = check(pem, files);
  ERR_clear_error();  // of this thread: whoever uses OpenSSL next would take them for his own
  return status;
}

}  // namespace pkv
