#include "tests/support/certificates.h"

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <cstdint>

namespace pkv::test {
namespace {

constexpr long kHour = 3600;

template <typename Write>
std::string pem_of(const Write& write) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> text(BIO_new(BIO_s_mem()), BIO_free);
  write(text.get());
  char* begin = nullptr;
  const long size = BIO_get_mem_data(text.get(), &begin);
  return std::string(begin, static_cast<size_t>(size));
}

std::shared_ptr<EVP_PKEY> make_key() { return {EVP_EC_gen("P-256"), EVP_PKEY_free}; }

void add_extension(X509& certificate, X509& issuer, int kind, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, &issuer, &certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, kind, value);
  X509_add_ext(&certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

// Without extensions and signature.
std::shared_ptr<X509> make_certificate(const std::string& name, EVP_PKEY& key, long begin, long end) {
  std::shared_ptr<X509> certificate(X509_new(), X509_free);
  X509_set_version(certificate.get(), 2);  // which is version 3
  uint32_t number = 0;
  RAND_bytes(reinterpret_cast<unsigned char*>(&number), sizeof(number));
  ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate.get()), number);
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), begin);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), end);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate.get()), "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509_set_pubkey(certificate.get(), &key);
  return certificate;
}

std::string certificate_pem(X509& certificate) {
  return pem_of([&](BIO* out) { PEM_write_bio_X509(out, &certificate); });
}

}  // namespace

Authority::Authority(const std::string& name)
    : key_(make_key()), certificate_(make_certificate(name, *key_, -kHour, kHour)) {
  X509_set_issuer_name(certificate_.get(), X509_get_subject_name(certificate_.get()));
  add_extension(*certificate_, *certificate_, NID_basic_constraints, "critical,CA:TRUE");
  X509_sign(certificate_.get(), key_.get(), EVP_sha256());
  pem_ = certificate_pem(*certificate_);
}

Identity Authority::issue(const std::string& name, long end, long begin) const {
  return sign(name, *make_key(), begin, end);
}

Identity Authority::issue_short(const std::string& name) const {
  const std::shared_ptr<EVP_PKEY> key(EVP_RSA_gen(1024), EVP_PKEY_free);
  return sign(name, *key, -kHour, kHour);
}

Identity Authority::sign(const std::string& name, EVP_PKEY& key, long begin, long end) const {
  const std::shared_ptr<X509> certificate = make_certificate(name, key, begin, end);
  X509_set_issuer_name(certificate.get(), X509_get_subject_name(certificate_.get()));
  add_extension(*certificate, *certificate_, NID_subject_alt_name, "IP:127.0.0.1");
  X509_sign(certificate.get(), key_.get(), EVP_sha256());
  return {.certificate = certificate_pem(*certificate),
          .private_key =
              pem_of([&](BIO* out) { PEM_write_bio_PrivateKey(out, &key, nullptr, nullptr, 0, nullptr, nullptr); })};
}

}  // namespace pkv::test
