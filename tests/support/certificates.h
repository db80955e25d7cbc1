// Certificates for tests of TLS, made on the spot.
#pragma once

#include <memory>
#include <string>

struct x509_st;
struct evp_pkey_st;

namespace pkv::test {

struct Identity {
  std::string certificate;  // PEM, as the next
  std::string private_key;
};

// Signs certificates for 127.0.0.1.
class Authority {
 public:
  explicit Authority(const std::string& name);
  // Its own, which those who trust it need.
  const std::string& certificate() const { return pem_; }
  // Good from `begin` to `end`, in seconds from now.
  Identity issue(const std::string& name, long end = 3600, long begin = -3600) const;
  // With a key that is too short for OpenSSL.
  Identity issue_short(const std::string& name) const;

 private:
  Identity sign(const std::string& name, evp_pkey_st& key, long begin, long end) const;

  std::shared_ptr<evp_pkey_st> key_;
  std::shared_ptr<x509_st> certificate_;
  std::string pem_;
};

}  // namespace pkv::test
