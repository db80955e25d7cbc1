// The certificates in force follow the files while those are good; what is no good is told once, and why.
#include "server/api/tls_files.h"

#include <gmock/gmock.h>

#include <cstdio>
#include <fstream>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "tests/support/certificates.h"
#include "tests/support/gguf_writer.h"

namespace pkv {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class TlsFilesTest : public ::testing::Test {
 protected:
  static void put(const test::TempFile& file, const std::string& text) { std::ofstream(file.path()) << text; }
  void put(const test::Identity& identity) const {
    put(cert_, identity.certificate);
    put(key_, identity.private_key);
  }
  // What the log says of it.
  std::string look() {
    ::testing::internal::CaptureStderr();
    tls_.look();
    return ::testing::internal::GetCapturedStderr();
  }
  void expect_refused(const std::string& why) {
    const std::shared_ptr<const TlsPem> before = tls_.pem();
    EXPECT_THAT(look(), AllOf(HasSubstr("no good"), HasSubstr(why)));
    EXPECT_THAT(look(), IsEmpty());  // told once
    EXPECT_EQ(tls_.pem(), before);
  }

  const test::Authority authority_{"authority"};
  const test::Identity first_ = authority_.issue("server");
  const test::TempFile cert_{first_.certificate}, key_{first_.private_key}, ca_{authority_.certificate()};
  const TlsConfig config_{.cert = cert_.path(), .key = key_.path(), .client_ca = ca_.path()};
  const Log log_{"error", "text"};
  TlsFiles tls_{config_, *read_tls_pem(config_), log_};
};

TEST_F(TlsFilesTest, NewFilesTakeTheOldOnesPlaceAndNothingNewIsTheSame) {
  const std::shared_ptr<const TlsPem> old = tls_.pem();
  EXPECT_THAT(look(), IsEmpty());
  EXPECT_EQ(tls_.pem(), old);
  const test::Identity next = authority_.issue("server");
  put(next);
  EXPECT_THAT(look(), IsEmpty());
  EXPECT_EQ(*tls_.pem(),
            (TlsPem{.cert = next.certificate, .key = next.private_key, .client_ca = authority_.certificate()}));
}

TEST_F(TlsFilesTest, CertificatesThatAreNoGood) {
  const std::string cert = "server.tls.cert: " + cert_.path() + ": ";
  put(cert_, "");
  expect_refused(cert + "holds no certificate in PEM");
  put(cert_, first_.certificate.substr(0, first_.certificate.size() / 2));
  expect_refused(cert + "certificate 1 cannot be read: ");
  put(cert_, first_.certificate + authority_.certificate().substr(0, 300));
  expect_refused(cert + "certificate 2 cannot be read: ");
  put(authority_.issue("server", -60));
  expect_refused(cert + "the certificate has expired");
  put(authority_.issue("server", 3600, 60));
  expect_refused(cert + "the certificate is not valid before");
  put(authority_.issue_short("server"));
  expect_refused(cert + "OpenSSL refuses it: ee key too small");
  put(key_, first_.private_key);
  put(cert_, first_.certificate + authority_.issue_short("between").certificate);
  expect_refused(cert + "OpenSSL refuses it: ca key too small");
  std::remove(cert_.path().c_str());
  expect_refused(cert + "cannot be read: No such file");
}

TEST_F(TlsFilesTest, ACertificateIsInForceOnceItIsValid) {
  const test::Identity next = authority_.issue("server", 3600, 2);
  put(next);
  const absl::Time patience = absl::Now() + absl::Minutes(1);
  while (tls_.pem()->cert != next.certificate && absl::Now() < patience) {
    absl::SleepFor(absl::Milliseconds(50));
    tls_.look();
  }
  EXPECT_EQ(tls_.pem()->cert, next.certificate);
}

TEST_F(TlsFilesTest, KeysThatAreNoGood) {
  const std::string key = "server.tls.key: " + key_.path() + ": ";
  put(key_, first_.private_key.substr(0, 60));
  expect_refused(key + "holds no private key in PEM");
  put(key_, authority_.issue("other").private_key);
  expect_refused(key + "is not the private key of the certificate in " + cert_.path());
}

TEST_F(TlsFilesTest, AuthoritiesThatAreNoGood) {
  put(ca_, authority_.certificate() + authority_.certificate().substr(0, 300));
  expect_refused("server.tls.client_ca: " + ca_.path() + ": certificate 2 cannot be read: ");
}

TEST_F(TlsFilesTest, TheSameFaultIsToldAgainAfterGoodFiles) {
  for (int time = 0; time < 2; ++time) {
    put(cert_, "no certificate");
    expect_refused("holds no certificate in PEM");
    const std::shared_ptr<const TlsPem> before = tls_.pem();
    put(first_);
    EXPECT_THAT(look(), IsEmpty());
    EXPECT_EQ(tls_.pem(), before);  // which they are
  }
}

}  // namespace
}  // namespace pkv
