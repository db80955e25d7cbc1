// The sockets, and as much of HTTP/1.1 as probes and scrapers speak.
#include "server/http/http_server.h"

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"

namespace pkv {
namespace {

using Clock = std::chrono::steady_clock;

// One more takes the place of the oldest: who asks and reads is served at once, so the oldest are those who do not.
constexpr size_t kMaxConnections = 64;
constexpr size_t kMaxHeadBytes = 8 << 10;
constexpr std::chrono::seconds kMaxLife{10};
constexpr std::chrono::seconds kMaxFarewell{1};  // once the answer is written
// When the system has no more descriptors for us.
constexpr std::chrono::milliseconds kAcceptPause{100};

std::string_view reason_of(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 431:
      return "Request Header Fields Too Large";
    case 503:
      return "Service Unavailable";
    default:
      return "Error";
  }
}

std::string to_text(const HttpResponse& response) {
  const std::string_view allow = response.status == 405 ? "Allow: GET\r\n" : "";
  return absl::StrCat("HTTP/1.1 ", response.status, " ", std::string(reason_of(response.status)),
                      "\r\nContent-Type: ", response.content_type, "\r\nContent-Length: ", response.body.size(), "\r\n",
                      std::string(allow), "Connection: close\r\n\r\n", response.body);
}

std::string refusal(int status) {
  return to_text({.status = status, .body = absl::StrCat(std::string(reason_of(status)), "\n")});
}

absl::Status system_error(int error) { return absl::UnavailableError(std::strerror(error)); }

// A socket that listens on one of the host's addresses; the reason of the last where none can be had.
absl::StatusOr<int> open_listener(const std::string& host, const std::string& port) {
  const addrinfo hints{.ai_flags = AI_PASSIVE, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
  addrinfo* found = nullptr;
  if (const int rc = getaddrinfo(host.c_str(), port.c_str(), &hints, &found); rc != 0) {
    return absl::UnavailableError(gai_strerror(rc));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, freeaddrinfo);
  absl::Status status = absl::UnavailableError("no such address");
  for (const addrinfo* address = addresses.get(); address != nullptr; address = address->ai_next) {
    const int listener =
        socket(address->ai_family, address->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, address->ai_protocol);
    if (listener < 0) {
      status = system_error(errno);
      continue;
    }
    const int on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(listener, address->ai_addr, address->ai_addrlen) == 0 && listen(listener, SOMAXCONN) == 0) return listener;
    status = system_error(errno);
    close(listener);
  }
  return status;
}

int port_of(int socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  std::array<char, NI_MAXSERV> port{};
  auto* any = reinterpret_cast<sockaddr*>(&address);
  if (getsockname(socket, any, &size) != 0 ||
      getnameinfo(any, size, nullptr, 0, port.data(), port.size(), NI_NUMERICSERV) != 0) {
    return 0;
  }
  return std::atoi(port.data());
}

bool would_block(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

}  // namespace

// Reads a request's head, then writes the answer, then waits for the client to close: closing first would make the
// system take back what the client has not read yet.
struct HttpServer::Connection {
  enum class Stage : uint8_t { kReading, kWriting, kClosing, kDone };

  explicit Connection(int descriptor) : socket(descriptor) {}
  ~Connection() { close(socket); }
  short events() const { return stage == Stage::kWriting ? POLLOUT : POLLIN; }

  const int socket;
  Clock::time_point deadline = Clock::now() + kMaxLife;
  Stage stage = Stage::kReading;
  std::string head;
  std::string answer;
  size_t written = 0;
};

HttpServer::HttpServer(std::function<HttpResponse(const std::string& path)> handler) : handler_(std::move(handler)) {}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::start(
    const std::string& listen, std::function<HttpResponse(const std::string& path)> handler) {
  std::unique_ptr<HttpServer> server(new HttpServer(std::move(handler)));
  if (absl::Status status = server->listen_on(listen); !status.ok()) return status;
  server->thread_ = std::jthread([self = server.get()] { self->run(); });
  return server;
}

absl::Status HttpServer::listen_on(const std::string& listen) {
  const size_t colon = listen.rfind(':');
  std::string host = listen.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  absl::StatusOr<int> listener = open_listener(host, listen.substr(colon + 1));
  if (!listener.ok()) return listener.status();
  listener_ = *listener;
  port_ = port_of(listener_);
  wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return wake_ < 0 ? system_error(errno) : absl::OkStatus();
}

HttpServer::~HttpServer() {
  if (thread_.joinable()) {
    eventfd_write(wake_, 1);
    thread_.join();
  }
  if (listener_ >= 0) close(listener_);
  if (wake_ >= 0) close(wake_);
}

void HttpServer::run() {
  std::vector<pollfd> watched;
  while (true) {
    watched = {{.fd = wake_, .events = POLLIN}, {.fd = listener_, .events = POLLIN}};
    auto wait = Clock::duration::max();
    for (const std::unique_ptr<Connection>& connection : connections_) {
      watched.push_back({.fd = connection->socket, .events = connection->events()});
      wait = std::min(wait, connection->deadline - Clock::now());
    }
    const auto milliseconds = std::chrono::ceil<std::chrono::milliseconds>(wait).count();
    poll(watched.data(), watched.size(),
         connections_.empty() ? -1 : static_cast<int>(std::max<int64_t>(0, milliseconds)));
    if (watched[0].revents != 0) return connections_.clear();
    for (size_t i = 0; i < connections_.size(); ++i) {
      if (watched[i + 2].revents != 0) advance(*connections_[i]);
    }
    std::erase_if(connections_, [now = Clock::now()](const std::unique_ptr<Connection>& connection) {
      return connection->stage == Connection::Stage::kDone || connection->deadline <= now;
    });
    if (watched[1].revents != 0) accept_one();
  }
}

void HttpServer::accept_one() {
  const int socket = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (socket < 0) {
    // Otherwise the listener stays readable and the loop would spin.
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
      std::this_thread::sleep_for(kAcceptPause);
    }
    return;
  }
  if (connections_.size() >= kMaxConnections) connections_.erase(connections_.begin());
  connections_.push_back(std::make_unique<Connection>(socket));
}

void HttpServer::advance(Connection& connection) {
  switch (connection.stage) {
    case Connection::Stage::kReading:
      return read_some(connection);
    case Connection::Stage::kWriting:
      return write_some(connection);
    case Connection::Stage::kClosing:
      return discard_some(connection);
    case Connection::Stage::kDone:
      return;
  }
}

void HttpServer::read_some(Connection& connection) {
  std::array<char, 4096> buffer;
  const ssize_t got = recv(connection.socket, buffer.data(), buffer.size(), 0);
  if (got < 0 && would_block(errno)) return;
  if (got <= 0) {
    connection.stage = Connection::Stage::kDone;
    return;
  }
  connection.head.append(buffer.data(), static_cast<size_t>(got));
  const bool complete = connection.head.find("\r\n\r\n") != std::string::npos;
  if (!complete && connection.head.size() < kMaxHeadBytes) return;
  connection.answer = complete ? answer(connection.head) : refusal(431);
  connection.head = {};
  connection.stage = Connection::Stage::kWriting;
  write_some(connection);
}

void HttpServer::write_some(Connection& connection) {
  const std::string_view rest = std::string_view(connection.answer).substr(connection.written);
  const ssize_t sent = send(connection.socket, rest.data(), rest.size(), MSG_NOSIGNAL);
  if (sent < 0 && would_block(errno)) return;
  if (sent < 0) {
    connection.stage = Connection::Stage::kDone;
    return;
  }
  connection.written += static_cast<size_t>(sent);
  if (connection.written < connection.answer.size()) return;
  connection.answer = {};
  shutdown(connection.socket, SHUT_WR);
  connection.deadline = std::min(connection.deadline, Clock::now() + kMaxFarewell);
  connection.stage = Connection::Stage::kClosing;
}

void HttpServer::discard_some(Connection& connection) {
  std::array<char, 4096> buffer;
  const ssize_t got = recv(connection.socket, buffer.data(), buffer.size(), 0);
  if (got == 0 || (got < 0 && !would_block(errno))) connection.stage = Connection::Stage::kDone;
}

// `head`: from the request line to the empty line.
std::string HttpServer::answer(const std::string& head) const {
  const std::string_view line = std::string_view(head).substr(0, head.find("\r\n"));
  const size_t first = line.find(' '), last = line.rfind(' ');
  if (first == std::string_view::npos || first == last || !line.substr(last + 1).starts_with("HTTP/1.")) {
    return refusal(400);
  }
  if (line.substr(0, first) != "GET") return refusal(405);
  const std::string_view target = line.substr(first + 1, last - first - 1);
  return to_text(handler_(std::string(target.substr(0, target.find('?')))));
}

}  // namespace pkv
