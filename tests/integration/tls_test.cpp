// TLS over real connections: who is let in with which certificates, and that new ones take effect while the server
// runs.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "client/client.h"
#include "tests/integration/server_fixture.h"
#include "tests/support/certificates.h"

namespace pkv {
namespace {

using ::testing::HasSubstr;

// What is written there while it lives, which can be read at any time; gtest's own has to end for that.
class StandardError {
 public:
  StandardError() {
    const int file = open(file_.path().c_str(), O_WRONLY | O_APPEND);
    dup2(file, STDERR_FILENO);
    close(file);
  }
  ~StandardError() {
    dup2(before_, STDERR_FILENO);
    close(before_);
  }
  StandardError(const StandardError&) = delete;
  StandardError& operator=(const StandardError&) = delete;
  std::string text() const {
    std::ifstream file(file_.path());
    return {std::istreambuf_iterator<char>(file), {}};
  }

 private:
  const test::TempFile file_{""};
  const int before_ = dup(STDERR_FILENO);
};

class TlsTest : public ServerTest {
 protected:
  void start_with(const std::string& client_ca = "", const std::function<void(Config&)>& change = {}) {
    start_and_load([&](Config& config) {
      config.server.tls = {.cert = cert_.path(), .key = key_.path(), .client_ca = client_ca};
      if (change) change(config);
    });
  }
  client::Client client(const client::Access& access) const {
    return client::Client("127.0.0.1:" + std::to_string(app_->port()), access);
  }
  client::Access trusting(const test::Authority& authority) const {
    return {.tls = true, .ca = authority.certificate()};
  }
  // Trusts the server's authority and has a certificate of its own.
  client::Access holding(const test::Identity& identity) const {
    client::Access access = trusting(authority_);
    access.certificate = identity.certificate;
    access.private_key = identity.private_key;
    return access;
  }
  bool lets_in(const client::Access& access) const {
    client::Client caller = client(access);
    return static_cast<bool>(caller.generate(request("hello", 2)));
  }

  // At once, as docs/security.md says.
  static void replace(const test::TempFile& file, const std::string& text) {
    const std::string next = file.path() + ".next";
    std::ofstream(next) << text;
    std::filesystem::rename(next, file.path());
  }
  // What the log says of the file when it holds that.
  std::string refusal_of(const test::TempFile& file, const std::string& text) {
    const StandardError told;
    replace(file, text);
    EXPECT_TRUE(eventually([&] { return told.text().find("no good") != std::string::npos; }));
    return told.text();
  }

  const test::Authority authority_{"authority"}, stranger_{"stranger"};
  const test::Identity identity_ = authority_.issue("server");
  const test::TempFile cert_{identity_.certificate};
  const test::TempFile key_{identity_.private_key};
  const test::TempFile ca_{authority_.certificate()};
};

TEST_F(TlsTest, ClientsThatTrustTheAuthorityAreServed) {
  start_with();
  client::Client good = client(trusting(authority_));
  const auto reply = good.generate(request("hello", 2));
  EXPECT_TRUE(reply) << reply.error.message;
  EXPECT_TRUE(good.check_health("", std::chrono::seconds(10)));
}

TEST_F(TlsTest, OthersAreToldWhatIsWrong) {
  start_with();
  client::Client doubting = client(trusting(stranger_));
  const auto doubted = doubting.generate(request("hello", 2));
  ASSERT_FALSE(doubted);
  EXPECT_FALSE(doubted.error.reachable);
  EXPECT_THAT(doubted.error.message, AllOf(HasSubstr("over TLS: "), HasSubstr("certificate verify failed")));
  client::Client plain = client({});
  const auto refused = plain.generate(request("hello", 2));
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error.message, HasSubstr("--tls"));
}

TEST_F(TlsTest, WithAClientAuthorityClientsNeedACertificateOfIt) {
  start_with(ca_.path());
  EXPECT_TRUE(lets_in(holding(authority_.issue("client"))));
  EXPECT_FALSE(lets_in(holding(stranger_.issue("client"))));
  EXPECT_FALSE(lets_in(holding(authority_.issue("client", -60))));
  EXPECT_FALSE(lets_in(trusting(authority_)));
}

TEST_F(TlsTest, ANewClientAuthorityTakesEffectWithoutAStart) {
  start_with(ca_.path());
  const client::Access old = holding(authority_.issue("client")), next = holding(stranger_.issue("client"));
  EXPECT_TRUE(lets_in(old));
  EXPECT_FALSE(lets_in(next));
  std::ofstream(ca_.path()) << stranger_.certificate();
  EXPECT_TRUE(eventually([&] { return lets_in(next); }));
  EXPECT_FALSE(lets_in(old));
}

TEST_F(TlsTest, NewCertificatesTakeEffectWithoutAStart) {
  start_with();
  EXPECT_TRUE(lets_in(trusting(authority_)));
  EXPECT_FALSE(lets_in(trusting(stranger_)));
  const test::Identity next = stranger_.issue("server");
  std::ofstream(key_.path()) << next.private_key;
  std::ofstream(cert_.path()) << next.certificate;
  EXPECT_TRUE(eventually([&] { return lets_in(trusting(stranger_)); }));
  EXPECT_FALSE(lets_in(trusting(authority_)));
}

TEST_F(TlsTest, FilesThatAreNoGoodAreToldAndTheOldOnesStay) {
  start_with(ca_.path());
  const client::Access mine = holding(authority_.issue("client"));
  const test::Identity next = stranger_.issue("server");
  EXPECT_THAT(refusal_of(key_, next.private_key),
              HasSubstr("server.tls.key: " + key_.path() + ": is not the private key of the certificate in"));
  EXPECT_TRUE(lets_in(mine));
  EXPECT_THAT(refusal_of(cert_, next.certificate.substr(0, next.certificate.size() / 2)),
              HasSubstr("server.tls.cert: " + cert_.path() + ": certificate 1 cannot be read"));
  EXPECT_TRUE(lets_in(mine));
  EXPECT_THAT(refusal_of(cert_, ""), HasSubstr("server.tls.cert: " + cert_.path() + ": holds no certificate"));
  EXPECT_TRUE(lets_in(mine));
  replace(cert_, next.certificate);
  EXPECT_TRUE(eventually([&] { return !lets_in(mine); }));
  client::Access trusting_the_next = mine;
  trusting_the_next.ca = stranger_.certificate();
  EXPECT_TRUE(lets_in(trusting_the_next));
  EXPECT_THAT(refusal_of(ca_, "no certificate"), HasSubstr("server.tls.client_ca: " + ca_.path() + ": holds no "));
  EXPECT_TRUE(lets_in(trusting_the_next));
  EXPECT_FALSE(lets_in(trusting(stranger_)));
}

TEST_F(TlsTest, KeysGoWithTlsAndHealthHasAPlainAddressOfItsOwn) {
  const std::string key = "alice-0123456789abcdef";
  const test::TempFile keys(key_hash_text(hash_key(key)) + " alice scope=generate,stats\n");
  start_with("", [&](Config& config) {
    config.server.api_keys = keys.path();
    config.server.health_listen = "127.0.0.1:0";
  });
  client::Access access = trusting(authority_);
  EXPECT_FALSE(lets_in(access));
  access.api_key = key;
  EXPECT_TRUE(lets_in(access));

  client::Client probe("127.0.0.1:" + std::to_string(app_->health_port()));
  const auto health = probe.check_health("", std::chrono::seconds(10));
  ASSERT_TRUE(health) << health.error.message;
  EXPECT_EQ(*health, client::Health::kServing);
  const auto nothing_else = probe.list_models();
  ASSERT_FALSE(nothing_else);
  EXPECT_EQ(nothing_else.error.code, grpc::StatusCode::UNIMPLEMENTED);
}

// By curl, over a connection of its own; `options`: further ones. What it printed, and its exit code.
std::pair<std::string, int> curl(const std::string& options, const std::string& url) {
  FILE* pipe = popen(("curl -sS -m 20 " + options + " " + url + " 2>&1").c_str(), "r");
  std::string output;
  char buffer[4096];
  while (const size_t got = fread(buffer, 1, sizeof(buffer), pipe)) output.append(buffer, got);
  return {output, WEXITSTATUS(pclose(pipe))};
}

class HttpsTest : public TlsTest {
 protected:
  static constexpr int kCannotVerify = 60;  // of curl
  void start_https(const std::string& client_ca = "", const std::function<void(Config&)>& change = {}) {
    start_with(client_ca, [&](Config& config) {
      config.http.listen = "127.0.0.1:0";
      if (change) change(config);
    });
  }
  std::string url(const std::string& path, const std::string& scheme = "https") const {
    return scheme + "://127.0.0.1:" + std::to_string(app_->http_port()) + path;
  }
  std::string trust() const { return "--cacert " + ca_.path(); }
};

TEST_F(HttpsTest, OpenAisApiHasTheSameCertificates) {
  start_https();
  EXPECT_THAT(curl(trust(), url("/v1/models")).first, HasSubstr("\"id\":\"tiny\""));
  const auto [events, code] =
      curl(trust() + R"( -N -d '{"prompt": "hello", "max_tokens": 5, "stream": true}')", url("/v1/completions"));
  EXPECT_EQ(code, 0);
  EXPECT_THAT(events, ::testing::EndsWith("data: [DONE]\n\n"));
  // Its end is told even where nothing else tells the length.
  EXPECT_EQ(
      curl(trust() + R"( --http1.0 -d '{"prompt": "hello", "max_tokens": 5, "stream": true}')", url("/v1/completions"))
          .second,
      0);
  const test::TempFile other(stranger_.certificate());
  EXPECT_EQ(curl("--cacert " + other.path(), url("/v1/models")).second, kCannotVerify);
  EXPECT_NE(curl("", url("/v1/models", "http")).second, 0);
  EXPECT_NE(curl(trust() + " --tls-max 1.1", url("/v1/models")).second, 0);
}

TEST_F(HttpsTest, LargeBodiesAndAnswersArriveWhole) {
  start_https();
  const test::TempFile body(R"({"max_tokens": 3, "echo": true, "logprobs": 5, "prompt": ")" + std::string(4000, 'x') +
                            "\"}");
  const auto [answer, code] = curl(trust() + " --data-binary @" + body.path(), url("/v1/completions"));
  EXPECT_EQ(code, 0);
  EXPECT_GT(answer.size(), size_t{200'000});
  EXPECT_THAT(answer.substr(answer.size() - 3), ::testing::EndsWith("}"));
}

TEST_F(HttpsTest, NewCertificatesTakeEffectWithoutAStart) {
  start_https();
  const test::Identity next = stranger_.issue("server");
  refusal_of(key_, next.private_key);  // the two do not fit together now
  EXPECT_EQ(curl(trust(), url("/v1/models")).second, 0);
  std::ofstream(cert_.path()) << next.certificate;
  const test::TempFile other(stranger_.certificate());
  EXPECT_TRUE(eventually([&] { return curl("--cacert " + other.path(), url("/v1/models")).second == 0; }));
  EXPECT_EQ(curl(trust(), url("/v1/models")).second, kCannotVerify);
}

TEST_F(HttpsTest, ANewClientAuthorityTakesEffectWithoutAStart) {
  const test::TempFile client_ca(authority_.certificate());
  start_https(client_ca.path());
  const auto lets_in = [&](const test::Authority& authority) {
    const test::Identity mine = authority.issue("client");
    const test::TempFile cert(mine.certificate), key(mine.private_key);
    return curl(trust() + " --cert " + cert.path() + " --key " + key.path(), url("/v1/models")).second == 0;
  };
  EXPECT_TRUE(lets_in(authority_));
  EXPECT_FALSE(lets_in(stranger_));
  std::ofstream(client_ca.path()) << stranger_.certificate();
  EXPECT_TRUE(eventually([&] { return lets_in(stranger_); }));
  EXPECT_FALSE(lets_in(authority_));
}

TEST_F(HttpsTest, FilesThatAreNoGoodAreToldAndTheOldOnesStayOnBothPorts) {
  start_https();
  EXPECT_THAT(refusal_of(cert_, "no certificate"), HasSubstr(cert_.path()));
  EXPECT_EQ(curl(trust(), url("/v1/models")).second, 0);
  EXPECT_TRUE(lets_in(trusting(authority_)));
}

TEST_F(HttpsTest, WithAClientAuthorityClientsNeedACertificateOfIt) {
  start_https(ca_.path());
  const test::Identity mine = authority_.issue("client");
  const test::TempFile cert(mine.certificate), key(mine.private_key);
  EXPECT_EQ(curl(trust() + " --cert " + cert.path() + " --key " + key.path(), url("/v1/models")).second, 0);
  EXPECT_NE(curl(trust(), url("/v1/models")).second, 0);
}

// The second of two connections resumes the session of the first.
TEST_F(HttpsTest, WithAClientAuthoritySessionsAreResumed) {
  start_https(ca_.path());
  const test::Identity mine = authority_.issue("client");
  const test::TempFile cert(mine.certificate), key(mine.private_key);
  for (const char* version : {" --tls-max 1.2", ""}) {
    const auto [output, code] =
        curl(trust() + " --cert " + cert.path() + " --key " + key.path() + version + " -v -H 'Connection: close'",
             url("/v1/models") + " " + url("/v1/models"));
    EXPECT_EQ(code, 0) << output;
    EXPECT_THAT(output, ::testing::ContainsRegex("SSL re-?using session"));
  }
}

TEST_F(HttpsTest, ItCanBeLeftToAProxy) {
  start_https("", [](Config& config) { config.http.tls = false; });
  EXPECT_EQ(curl("", url("/v1/models", "http")).second, 0);
}

TEST_F(HttpsTest, AClientThatLeavesIsNoticed) {
  start_https();
  curl(trust() + " -m 1 -N -d '{\"prompt\": \"hello\", \"max_tokens\": 60000, \"ignore_eos\": true, \"stream\": true}'",
       url("/v1/completions"));
  EXPECT_TRUE(eventually([&] { return app_->open_calls() == 0 && app_->open_requests() == 0; }));
}

TEST_F(TlsTest, FilesThatAreNoGoodAreNamedAtTheStart) {
  Config config;
  config.server.listen = "127.0.0.1:0";
  config.metrics.listen = "";
  config.server.tls = {.cert = cert_.path(), .key = "/nonexistent.pem"};
  const absl::Status status = App::start(config, log_).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("server.tls.key: /nonexistent.pem: cannot be read"));
}

}  // namespace
}  // namespace pkv
