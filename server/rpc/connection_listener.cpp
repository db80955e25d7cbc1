#include "server/rpc/connection_listener.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/api/listen_address.h"
#include "server/api/peer_network.h"
#include "server/rpc/listen_failure.h"

namespace pkv {
namespace {

// Without a descriptor or memory for a connection.
constexpr int kPauseMs = 100;
// Connections, before it is looked whether this is to end.
constexpr int kTakenAtOnce = 64;
// While it is full, all connections are looked through no more often, however many come.
constexpr absl::Duration kLookEvery = absl::Milliseconds(10);
// What was sent may stay unacknowledged before a connection is given up: what gRPC sets on listeners of its own.
constexpr unsigned kUnacknowledgedMs = 20'000;

// 0: there is no such file.
uint64_t inode_of(int fd) {
  struct stat status = {};
  return ::fstat(fd, &status) == 0 ? status.st_ino : 0;
}

bool set_option(int fd, int level, int name, int value) {
  return ::setsockopt(fd, level, name, &value, sizeof value) == 0;
}

// A listening socket, or -errno. Its connections inherit the options.
int listen_on(const addrinfo& address, uint16_t port) {
  sockaddr_storage at = {};
  std::memcpy(&at, address.ai_addr, address.ai_addrlen);
  const bool six = address.ai_family == AF_INET6;
  (six ? reinterpret_cast<sockaddr_in6&>(at).sin6_port : reinterpret_cast<sockaddr_in&>(at).sin_port) = htons(port);
  const int fd = ::socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -errno;
  if (six) set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);  // :: takes IPv4, too
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, kUnacknowledgedMs);
  if (set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1) &&
      ::bind(fd, reinterpret_cast<const sockaddr*>(&at), address.ai_addrlen) == 0 && ::listen(fd, SOMAXCONN) == 0) {
    return fd;
  }
  const int error = errno;
  ::close(fd);
  return -error;
}

uint16_t port_of(int fd) {
  sockaddr_storage at = {};
  socklen_t length = sizeof at;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&at), &length) != 0) return 0;
  return ntohs(at.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(at).sin6_port
                                        : reinterpret_cast<const sockaddr_in&>(at).sin_port);
}

// Sockets that listen on all addresses of `host`, on one port where that is 0; or the reason why there are none.
absl::StatusOr<std::vector<int>> listen_on_all(const std::string& host, const std::string& port,
                                               const std::string& key) {
  const addrinfo hints{.ai_flags = AI_PASSIVE, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
  addrinfo* found = nullptr;
  if (const int failure = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found); failure != 0) {
    return absl::UnavailableError(::gai_strerror(failure));
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(found, ::freeaddrinfo);
  std::vector<int> sockets;
  int error = 0;
  uint16_t number = static_cast<uint16_t>(std::stoi(port));
  for (const addrinfo* address = found; address != nullptr; address = address->ai_next) {
    const int fd = listen_on(*address, number);
    if (fd < 0) {
      error = -fd;
      continue;
    }
    sockets.push_back(fd);
    number = port_of(fd);
  }
  if (sockets.empty()) return absl::UnavailableError(why_not_listening(error, key));
  return sockets;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ConnectionListener>> ConnectionListener::open(const std::string& key,
                                                                             const std::string& listen,
                                                                             size_t max_connections) {
  const ListenAddress address(listen);
  std::unique_ptr<ConnectionListener> result(new ConnectionListener(max_connections));
  absl::StatusOr<std::vector<int>> sockets;
  for (const std::string& host : address.hosts) {
    sockets = listen_on_all(host, address.port, key);
    if (sockets.ok()) break;
  }
  if (!sockets.ok()) {
    return absl::UnavailableError(absl::StrCat(key, ": ", listen, ": ", std::string(sockets.status().message())));
  }
  result->listeners_ = *std::move(sockets);
  result->wake_ = ::eventfd(0, EFD_CLOEXEC);
  if (result->wake_ >= 0) return result;
  return absl::UnavailableError(absl::StrCat(key, ": ", listen, ": ", std::strerror(errno)));
}

ConnectionListener::~ConnectionListener() {
  stop();
  if (wake_ >= 0) ::close(wake_);
}

int ConnectionListener::port() const { return listeners_.empty() ? 0 : port_of(listeners_.front()); }

void ConnectionListener::start(std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor) {
  acceptor_ = std::move(acceptor);
  thread_ = std::thread([this] { run(); });
}

void ConnectionListener::stop() {
  if (thread_.joinable()) {
    ::eventfd_write(wake_, 1);
    thread_.join();
  }
  for (const int fd : listeners_) ::close(fd);
  listeners_.clear();
}

void ConnectionListener::run() {
  std::vector<pollfd> files = {{.fd = wake_, .events = POLLIN}};
  for (const int fd : listeners_) files.push_back({.fd = fd, .events = POLLIN});
  while (true) {
    if (::poll(files.data(), files.size(), -1) < 0) continue;  // a signal
    if (files[0].revents != 0) return;
    bool pause = false;
    for (size_t i = 1; i < files.size(); ++i) {
      if (files[i].revents != 0 && !take(files[i].fd)) pause = true;
    }
    if (pause) ::poll(files.data(), 1, kPauseMs);
  }
}

// What has come. False: there is no descriptor or no memory for it now.
bool ConnectionListener::take(int listener) {
  for (int i = 0; i < kTakenAtOnce; ++i) {
    sockaddr_storage peer = {};
    socklen_t length = sizeof peer;
    const int fd = ::accept4(listener, reinterpret_cast<sockaddr*>(&peer), &length, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) return errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM;
    if (!count(fd, peer_network(reinterpret_cast<const sockaddr&>(peer)))) {
      ::close(fd);
      continue;
    }
    grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
    connection.listener_fd = listener;
    connection.fd = fd;
    acceptor_->HandleNewConnection(&connection);
  }
  return true;
}

// Counts a connection that is to be handed on. False: there are as many as there may be, or no memory to count it.
bool ConnectionListener::count(int fd, uint64_t network) try {
  const std::lock_guard lock(mutex_);
  if (is_full(network) && absl::Now() - looked_through_ >= kLookEvery) forget_closed();
  if (is_full(network)) {
    ++refused_;
    return false;
  }
  given_.push_back({.fd = fd, .inode = inode_of(fd), .network = network});
  return true;
} catch (const std::bad_alloc&) {
  return false;
}

// For one more of `network`.
bool ConnectionListener::is_full(uint64_t network) const {
  if (given_.size() >= max_connections_) return true;
  const size_t half = max_connections_ / 2;
  return given_.size() > half && static_cast<size_t>(std::ranges::count(given_, network, &Given::network)) > half;
}

void ConnectionListener::forget_closed() {
  std::erase_if(given_, [](const Given& given) { return inode_of(given.fd) != given.inode; });
  looked_through_ = absl::Now();
}

ConnectionCounts ConnectionListener::counts() {
  const std::lock_guard lock(mutex_);
  forget_closed();
  return {.open = given_.size(), .refused_total = refused_};
}

}  // namespace pkv
