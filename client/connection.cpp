#include "client/connection.h"

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace pkv::client {
namespace {

constexpr int kPatienceMs = 2000;
constexpr char kTryTls[] =
    "\nTry --tls, or --ca FILE where the system does not know the authority of the server's certificate";

struct Address {
  std::string host, port;
};

// "host:port", "[::1]:port"; the host or port is empty where it is missing.
Address split(const std::string& target) {
  const size_t bracket = target.find(']');
  const size_t colon = target.find(':', bracket == std::string::npos ? 0 : bracket);
  Address address{.host = target.substr(0, colon)};
  if (colon != std::string::npos) address.port = target.substr(colon + 1);
  if (absl::StartsWith(address.host, "[") && absl::EndsWith(address.host, "]"))
    address.host = address.host.substr(1, address.host.size() - 2);
  return address;
}

bool left_to_grpc(const std::string& target) {
  for (const char* scheme : {"unix:", "unix-abstract:", "dns:", "ipv4:", "ipv6:", "vsock:", "xds:"}) {
    if (absl::StartsWith(target, scheme)) return true;
  }
  return false;
}

class Socket {
 public:
  explicit Socket(const addrinfo& address)
      : descriptor_(socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) {}
  ~Socket() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  // 0, or errno.
  int connect_to(const addrinfo& address) const {
    if (descriptor_ < 0) return errno;
    if (connect(descriptor_, address.ai_addr, address.ai_addrlen) == 0) return 0;
    if (errno != EINPROGRESS) return errno;
    if (!wait_for(POLLOUT)) return ETIMEDOUT;
    int error = 0;
    socklen_t size = sizeof(error);
    getsockopt(descriptor_, SOL_SOCKET, SO_ERROR, &error, &size);
    return error;
  }
  bool wait_for(short events) const {
    pollfd poll_this{.fd = descriptor_, .events = events, .revents = 0};
    return poll(&poll_this, 1, kPatienceMs) > 0;
  }
  int descriptor() const { return descriptor_; }

 private:
  const int descriptor_;
};

// Begins an HTTP/2 connection and looks at what comes back.
std::string listener_problem(const Socket& socket) {
  constexpr char kPreface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";  // and empty SETTINGS
  std::string opening(kPreface, sizeof(kPreface));
  if (send(socket.descriptor(), opening.data(), opening.size(), MSG_NOSIGNAL) < 0 || !socket.wait_for(POLLIN))
    return "something listens there and does not answer: no gRPC server, or one that hangs";
  std::array<char, 64> buffer{};
  const ssize_t size = recv(socket.descriptor(), buffer.data(), buffer.size(), 0);
  if (size <= 0) return absl::StrCat("what listens there hangs up: no gRPC server, or one that expects TLS", kTryTls);
  return foreign_speech(std::string(buffer.data(), static_cast<size_t>(size)));
}

}  // namespace

std::string foreign_speech(const std::string& answer) {
  if (answer.size() >= 2 && answer[0] == '\x15' && answer[1] == '\x03')
    return absl::StrCat("it expects TLS, and this connection is plain", kTryTls);
  if (absl::StartsWith(answer, "HTTP/1"))
    return "a web server answers there, no gRPC server (the port of the metrics?)";
  if (absl::StartsWith(answer, "SSH-")) return "an SSH server answers there, no gRPC server";
  constexpr char kSettings = 4;  // the type of the frame that opens HTTP/2
  if (answer.size() >= 9 && answer[3] == kSettings) return "";
  return "something else than a gRPC server answers there";
}

std::string target_problem(const std::string& target) {
  if (left_to_grpc(target)) return "";
  const size_t scheme = target.find("://");
  if (scheme != std::string::npos) {
    std::string rest = target.substr(scheme + 3);
    rest = rest.substr(0, rest.find('/'));
    return absl::StrCat("'", target, "' is not HOST:PORT; try --server ", rest);
  }
  const auto [host, port] = split(target);
  if (host.empty())
    return absl::StrCat("'", target, "' names no host; try --server 127.0.0.1:", port.empty() ? "50051" : port);
  if (port.empty()) return absl::StrCat("'", target, "' has no port; try --server ", host, ":50051");
  uint32_t number = 0;
  if (!absl::SimpleAtoi(port, &number) || number == 0 || number > 65535)
    return absl::StrCat("'", port, "' is no port, which is a number from 1 to 65535; try --server ", host, ":50051");
  return "";
}

ConnectionProblem connection_problem(const std::string& target, bool tls) {
  if (left_to_grpc(target)) return {"no connection can be made"};
  const auto [host, port] = split(target);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int code = getaddrinfo(host.c_str(), port.c_str(), &hints, &found); code != 0)
    return {absl::StrCat("the name '", host, "' does not resolve (", gai_strerror(code), ")")};
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, freeaddrinfo);
  int error = 0;
  for (const addrinfo* address = found; address != nullptr; address = address->ai_next) {
    const Socket socket(*address);
    error = socket.connect_to(*address);
    if (error != 0) continue;
    const std::string problem = tls ? "" : listener_problem(socket);
    return {problem.empty() ? "a server listens there and does not take the connection in time" : problem, true};
  }
  if (error == ECONNREFUSED) return {"nothing listens there (connection refused)"};
  if (error == ETIMEDOUT) return {"nothing answers there"};
  return {std::strerror(error)};
}

}  // namespace pkv::client
