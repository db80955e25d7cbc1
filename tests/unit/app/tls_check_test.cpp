// Files of server.tls that are not what they should be are named before the server starts.
#include "server/tls_check.h"

#include <gmock/gmock.h>

#include "tests/support/certificates.h"
#include "tests/support/gguf_writer.h"

namespace pkv {
namespace {

using ::testing::HasSubstr;

class TlsCheckTest : public ::testing::Test {
 protected:
  TlsCheckTest() {
    config_.server.tls = {.cert = cert_.path(), .key = key_.path()};
    config_.places["server.tls.cert"] = "f:1";
  }
  std::string refusal() const {
    const absl::Status status = configured_tls(config_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(status.message());
  }

  const test::Authority authority_{"authority"};
  const test::Identity identity_ = authority_.issue("server");
  const test::TempFile cert_{identity_.certificate};
  const test::TempFile key_{identity_.private_key};
  const test::TempFile ca_{authority_.certificate()};
  Config config_;
};

TEST_F(TlsCheckTest, GoodFiles) {
  EXPECT_THAT(configured_tls({}), ::testing::Truly([](const auto& tls) { return tls.ok() && !*tls; }));
  EXPECT_TRUE(configured_tls(config_).ok()) << configured_tls(config_).status();
  config_.server.tls.client_ca = ca_.path();
  EXPECT_TRUE(configured_tls(config_).ok()) << configured_tls(config_).status();
}

TEST_F(TlsCheckTest, FilesThatAreMissingOrNoSuchFiles) {
  config_.server.tls.cert = "/nonexistent.pem";
  EXPECT_THAT(refusal(), HasSubstr("f:1: server.tls.cert: /nonexistent.pem: cannot be read: No such file"));
  config_.server.tls.cert = key_.path();
  EXPECT_THAT(refusal(), HasSubstr("server.tls.cert: " + key_.path() + ": holds no certificate in PEM"));
  config_.server.tls = {.cert = cert_.path(), .key = "/"};
  EXPECT_THAT(refusal(), HasSubstr("server.tls.key: /: "));
  config_.server.tls.key = cert_.path();
  EXPECT_THAT(refusal(), HasSubstr("holds no private key in PEM"));
  config_.server.tls = {.cert = cert_.path(), .key = key_.path(), .client_ca = key_.path()};
  EXPECT_THAT(refusal(), HasSubstr("server.tls.client_ca: " + key_.path() + ": holds no certificate"));
}

TEST_F(TlsCheckTest, AKeyOfAnotherCertificate) {
  const test::TempFile other(authority_.issue("other").private_key);
  config_.server.tls.key = other.path();
  EXPECT_THAT(refusal(), AllOf(HasSubstr("server.tls.key: " + other.path()), HasSubstr("is not the private key of"),
                               HasSubstr(cert_.path())));
}

TEST_F(TlsCheckTest, ACertificateThatHasExpired) {
  const test::Identity expired = authority_.issue("server", -60);
  const test::TempFile cert(expired.certificate), key(expired.private_key);
  config_.server.tls = {.cert = cert.path(), .key = key.path()};
  EXPECT_THAT(refusal(), AllOf(HasSubstr(cert.path()), HasSubstr("has expired, on ")));
}

}  // namespace
}  // namespace pkv
