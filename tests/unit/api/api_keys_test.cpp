// The file of key hashes, line by line, and what the keys in force let through.
#include "server/api/api_keys.h"

#include <gmock/gmock.h>

#include "server/api/authenticator.h"
#include "server/api/errors.h"
#include "tests/support/gguf_writer.h"

namespace pkv {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const std::string kAlice = "alice-0123456789abcdef", kBob = "bob-0123456789abcdef";

std::string line(const std::string& key, const std::string& rest) { return key_hash_text(hash_key(key)) + " " + rest; }

std::string refusal(const std::string& text) {
  const absl::StatusOr<std::vector<ApiKey>> keys = parse_api_keys(text, "keys");
  EXPECT_EQ(keys.status().code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(keys.status().message());
}

TEST(ApiKeys, HashesAreThoseOfSha256) {
  EXPECT_EQ(key_hash_text(hash_key("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(ApiKeys, LinesOfAFile) {
  const auto keys = parse_api_keys(
      "# who\n\n" + line(kAlice, "alice\n") + line(kBob, "\tbob  scope=generate,stats max_requests=3 priority=-7\r\n"),
      "f");
  ASSERT_TRUE(keys.ok()) << keys.status();
  ASSERT_EQ(keys->size(), 2u);
  EXPECT_EQ((*keys)[0].name, "alice");
  EXPECT_TRUE((*keys)[0].generate);
  EXPECT_FALSE((*keys)[0].stats);
  EXPECT_EQ((*keys)[0].max_requests, 0);
  EXPECT_EQ((*keys)[1].hash, hash_key(kBob));
  EXPECT_TRUE((*keys)[1].generate && (*keys)[1].stats);
  EXPECT_EQ((*keys)[1].max_requests, 3);
  EXPECT_EQ((*keys)[0].best_priority, 0);
  EXPECT_EQ((*keys)[1].best_priority, -7);
}

TEST(ApiKeys, WhatIsNoLineIsRefusedByItsNumberAndNeverRepeated) {
  EXPECT_THAT(refusal("\n" + kAlice + " alice\n"),
              AllOf(HasSubstr("keys:2: "), HasSubstr("--hash-key"), Not(HasSubstr(kAlice))));
  EXPECT_THAT(refusal(line(kAlice, "")), HasSubstr("keys:1: the hash must be followed by the key's name"));
  EXPECT_THAT(refusal(line(kAlice, "a=b")), HasSubstr("name"));
  EXPECT_THAT(refusal(line(kAlice, std::string(65, 'a'))), HasSubstr("name"));
  EXPECT_THAT(refusal(line(kAlice, "a scope=root")), HasSubstr("keys:1: scope: "));
  EXPECT_THAT(refusal(line(kAlice, "a scope=")), HasSubstr("keys:1: scope: "));
  for (const char* number : {"0", "-1", "x", "", "99999999999"})
    EXPECT_THAT(refusal(line(kAlice, "a max_requests=" + std::string(number))), HasSubstr("keys:1: max_requests: "));
  for (const char* number : {"-101", "101", "x", ""})
    EXPECT_THAT(refusal(line(kAlice, "a priority=" + std::string(number))), HasSubstr("keys:1: priority: "));
  EXPECT_THAT(refusal(line(kAlice, "a max_request=1")), HasSubstr("scope=..., max_requests=N or priority=N"));
  EXPECT_THAT(refusal(line(kAlice, "a scope=stats scope=generate")), HasSubstr("twice"));
  EXPECT_THAT(refusal(line(kAlice, "a\n") + line(kAlice, "b")), HasSubstr("keys:2: b: its hash"));
  EXPECT_THAT(refusal(line(kAlice, "a\n") + line(kBob, "a")), HasSubstr("keys:2: a: the name"));
  EXPECT_THAT(refusal("# none\n"), HasSubstr("holds no key"));
}

TEST(ApiKeys, FilesThatCannotBeRead) {
  EXPECT_EQ(load_api_keys("/nonexistent").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(load_api_keys("/").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(load_api_keys("/dev/zero").status().message()), HasSubstr("has more than"));
  const test::TempFile file(line(kAlice, "alice"));
  EXPECT_TRUE(load_api_keys(file.path()).ok());
}

TEST(ApiKeys, KeysThatCouldBeGuessedGetNoHash) {
  EXPECT_EQ(*hash_new_key(kAlice), key_hash_text(hash_key(kAlice)));
  for (const std::string bad : {std::string("short"), std::string(513, 'x'), kAlice + " x", kAlice + "\r"}) {
    const absl::Status status = hash_new_key(bad).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("openssl rand"), Not(HasSubstr(bad))));
  }
}

TEST(Authorization, OnlyOneBearerKeyIsRead) {
  for (const char* good : {"Bearer k", "bearer k", "BEARER k"}) {
    EXPECT_EQ(read_authorization(good).kind, Credentials::Kind::kKey) << good;
    EXPECT_EQ(read_authorization(good).hash, hash_key("k")) << good;
  }
  EXPECT_EQ(read_authorization("").kind, Credentials::Kind::kNone);
  for (const char* bad : {"k", "Bearer", "Bearer ", "Basic azpr"})
    EXPECT_EQ(read_authorization(bad).kind, Credentials::Kind::kUnreadable) << bad;
}

class AuthenticatorTest : public ::testing::Test {
 protected:
  static std::vector<ApiKey> keys(const std::string& text) { return *parse_api_keys(text, "keys"); }
  std::string reason(const std::string& key, KeyScope scope = KeyScope::kGenerate) {
    use_.reset();
    return error_reason(authenticator_.admit(read_authorization("Bearer " + key), scope, use_));
  }

  Authenticator authenticator_;
  std::shared_ptr<KeyUse> use_;
};

TEST_F(AuthenticatorTest, WithoutKeysEverybodyMayCall) {
  EXPECT_EQ(reason("anything"), "");
  EXPECT_EQ(use_, nullptr);
  EXPECT_TRUE(authenticator_.admit({}, KeyScope::kStats, use_).ok());
}

TEST_F(AuthenticatorTest, KeysAndScopes) {
  authenticator_.replace(keys(line(kAlice, "alice\n") + line(kBob, "bob scope=stats")));
  EXPECT_EQ(reason(kAlice), "");
  EXPECT_EQ(use_->name(), "alice");
  EXPECT_EQ(reason(kAlice, KeyScope::kStats), "PERMISSION_DENIED");
  EXPECT_EQ(use_->name(), "alice");
  EXPECT_EQ(reason(kBob, KeyScope::kStats), "");
  EXPECT_EQ(reason(kBob), "PERMISSION_DENIED");
  EXPECT_EQ(reason(kBob, KeyScope::kAny), "");
  EXPECT_EQ(reason(kAlice + "x"), "UNAUTHENTICATED");
  EXPECT_EQ(use_, nullptr);
}

TEST_F(AuthenticatorTest, PlacesAreGivenBackAndOutliveAReplacement) {
  const std::string one = line(kAlice, "alice max_requests=1");
  authenticator_.replace(keys(one));
  EXPECT_EQ(reason(kAlice), "");
  const std::shared_ptr<KeyUse> first = use_;
  EXPECT_EQ(reason(kAlice), "KEY_LIMIT");
  EXPECT_EQ(reason(kAlice, KeyScope::kAny), "");                     // takes no place
  authenticator_.replace(keys(line(kBob, "alice max_requests=1")));  // another key, the same name
  EXPECT_EQ(reason(kBob), "KEY_LIMIT");
  EXPECT_EQ(reason(kAlice), "UNAUTHENTICATED");
  first->release();
  first->release();
  EXPECT_EQ(reason(kBob), "");
  const std::shared_ptr<KeyUse> second = use_;
  EXPECT_EQ(reason(kBob), "KEY_LIMIT");
  authenticator_.replace({});
  EXPECT_EQ(reason("anything"), "");
}

}  // namespace
}  // namespace pkv
