// Who may connect: as many as there may be, and whoever comes while there is no descriptor waits for one.
#include "server/rpc/connection_listener.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"

namespace pkv {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// A descriptor of its own.
class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~File() { close(); }
  int get() const { return fd_; }
  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  int fd_;
};

// What gRPC would do with connections: has them.
class Holder final : public grpc::experimental::ExternalConnectionAcceptor {
 public:
  explicit Holder(std::vector<File>& held, std::mutex& mutex) : held_(held), mutex_(mutex) {}
  void HandleNewConnection(NewConnectionParameters* connection) override {
    const std::lock_guard lock(mutex_);
    held_.emplace_back(connection->fd);
  }

 private:
  std::vector<File>& held_;
  std::mutex& mutex_;
};

class ConnectionListenerTest : public ::testing::Test {
 protected:
  static constexpr size_t kMost = 2;

  ConnectionListenerTest() : listener_(*ConnectionListener::open("server.listen", "127.0.0.1:0", kMost)) {
    listener_->start(std::make_unique<Holder>(held_, mutex_));
  }
  ~ConnectionListenerTest() override { listener_->stop(); }

  static File make_socket() { return File(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)); }
  // From the address `from` of this machine.
  bool connect(const File& socket, const char* from = "127.0.0.1") const {
    sockaddr_in own = {.sin_family = AF_INET};
    ::inet_pton(AF_INET, from, &own.sin_addr);
    EXPECT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&own), sizeof own), 0);
    sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(static_cast<uint16_t>(listener_->port()))};
    ::inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    return ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0;
  }
  File make_connection(const char* from = "127.0.0.1") const {
    File socket = make_socket();
    EXPECT_TRUE(connect(socket, from));
    return socket;
  }
  size_t held() {
    const std::lock_guard lock(mutex_);
    return held_.size();
  }
  bool comes_to_hold(size_t count) {
    for (int i = 0; i < 2000 && held() != count; ++i) absl::SleepFor(absl::Milliseconds(5));
    return held() == count;
  }
  // Whether the other side closes it, which is waited for.
  static bool is_closed(const File& socket) {
    pollfd file = {.fd = socket.get(), .events = POLLIN};
    char byte = 0;
    return ::poll(&file, 1, 10'000) == 1 && ::recv(socket.get(), &byte, 1, 0) <= 0;
  }

  std::mutex mutex_;
  std::vector<File> held_;
  std::unique_ptr<ConnectionListener> listener_;
};

TEST_F(ConnectionListenerTest, OneTooManyIsClosedUntilOneHasGone) {
  const File first = make_connection(), second = make_connection();
  ASSERT_TRUE(comes_to_hold(2));
  EXPECT_EQ(listener_->counts().open, 2u);
  const File third = make_connection();
  EXPECT_TRUE(is_closed(third));
  EXPECT_EQ(listener_->counts().refused_total, 1u);
  {
    const std::lock_guard lock(mutex_);
    held_.front().close();
  }
  const File other(::dup(first.get()));  // another file may have its number now
  EXPECT_EQ(listener_->counts().open, 1u);
  const File fourth = make_connection();
  EXPECT_TRUE(comes_to_hold(3));  // the closed one is in the list still
  EXPECT_EQ(listener_->counts().open, 2u);
}

TEST_F(ConnectionListenerTest, OneHostLeavesRoomForOthers) {
  listener_->stop();
  listener_ = *ConnectionListener::open("server.listen", "127.0.0.1:0", 4);
  listener_->start(std::make_unique<Holder>(held_, mutex_));
  std::vector<File> greedy;
  for (int i = 0; i < 3; ++i) greedy.push_back(make_connection());
  ASSERT_TRUE(comes_to_hold(3));
  EXPECT_TRUE(is_closed(make_connection()));
  const File other = make_connection("127.0.0.2");
  EXPECT_TRUE(comes_to_hold(4));
  EXPECT_EQ(listener_->counts().refused_total, 1u);
}

TEST_F(ConnectionListenerTest, WithoutADescriptorItWaitsForOne) {
  const File client = make_socket();
  rlimit before = {};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const File next(::dup(client.get()));
  rlimit none = before;
  none.rlim_cur = static_cast<rlim_t>(next.get()) + 1;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  std::vector<File> rest;  // below the limit
  for (int fd = ::dup(client.get()); fd >= 0; fd = ::dup(client.get())) rest.emplace_back(fd);
  EXPECT_TRUE(connect(client));  // the system takes it
  absl::SleepFor(absl::Milliseconds(150));
  EXPECT_EQ(held(), 0u);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_TRUE(comes_to_hold(1));
}

TEST_F(ConnectionListenerTest, AnAddressThatIsTakenIsNamedWithTheSetting) {
  const std::string address = "127.0.0.1:" + std::to_string(listener_->port());
  const auto second = ConnectionListener::open("server.health_listen", address, kMost);
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()),
              AllOf(StartsWith("server.health_listen: " + address + ": already in use"),
                    HasSubstr("set server.health_listen to another port")));
  EXPECT_FALSE(ConnectionListener::open("server.listen", "no.such.host.invalid:0", kMost).ok());
}

TEST(ConnectionListener, AllAddressesAreThoseOfBothKinds) {
  for (const char* everywhere : {"0.0.0.0:0", "[::]:0"}) {
    const auto listener = ConnectionListener::open("server.listen", everywhere, 1);
    if (!listener.ok()) continue;  // [::] on a machine without IPv6
    const File socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(static_cast<uint16_t>((*listener)->port()))};
    ::inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    EXPECT_EQ(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to), 0) << everywhere;
  }
}

}  // namespace
}  // namespace pkv
