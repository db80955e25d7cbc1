// A TCP connection that a test can cut: to the server it looks as if its client had been killed.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <limits>
#include <thread>

namespace pkv::test {

// Takes one connection and passes on what both sides say: of the client about `client_bytes`, and then nothing more, as
// if it had stopped in the middle of a message.
class CutWire {
 public:
  explicit CutWire(int server_port, size_t client_bytes = std::numeric_limits<size_t>::max())
      : client_bytes_(client_bytes), listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof(address);
    EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::listen(listener_, 1), 0);
    EXPECT_EQ(::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this, server_port] { pass_on(server_port); });
  }
  ~CutWire() { cut(); }
  CutWire(const CutWire&) = delete;
  CutWire& operator=(const CutWire&) = delete;

  int port() const { return port_; }
  // Without a goodbye: both ends get a reset.
  void cut() {
    cut_ = true;
    if (thread_.joinable()) thread_.join();
  }

 private:
  void pass_on(int server_port) {
    std::array<int, 2> ends = {wait_for(listener_) ? ::accept(listener_, nullptr, nullptr) : -1,
                               ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    const sockaddr_in server{.sin_family = AF_INET,
                             .sin_port = htons(static_cast<uint16_t>(server_port)),
                             .sin_addr = {htonl(INADDR_LOOPBACK)}};
    bool open = ends[0] >= 0 && ::connect(ends[1], reinterpret_cast<const sockaddr*>(&server), sizeof(server)) == 0;
    size_t passed = 0;  // of the client's
    while (open && !cut_) {
      std::array<pollfd, 2> ready = {pollfd{.fd = passed < client_bytes_ ? ends[0] : -1, .events = POLLIN},
                                     pollfd{.fd = ends[1], .events = POLLIN}};
      ::poll(ready.data(), ready.size(), kTickMs);
      for (const size_t from : {0, 1}) {
        if (ready[from].revents == 0) continue;
        std::array<char, 4096> bytes;
        const ssize_t got = ::recv(ends[from], bytes.data(), bytes.size(), 0);
        open = open && got > 0 && ::send(ends[1 - from], bytes.data(), static_cast<size_t>(got), MSG_NOSIGNAL) == got;
        if (from == 0 && got > 0) passed += static_cast<size_t>(got);
      }
    }
    for (const int end : ends) {
      const linger reset{.l_onoff = 1, .l_linger = 0};
      ::setsockopt(end, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
      ::close(end);
    }
    ::close(listener_);
  }
  bool wait_for(int socket) const {
    pollfd ready{.fd = socket, .events = POLLIN};
    while (!cut_) {
      if (::poll(&ready, 1, kTickMs) > 0) return true;
    }
    return false;
  }

  static constexpr int kTickMs = 5;
  const size_t client_bytes_;
  const int listener_;
  int port_ = 0;
  std::atomic<bool> cut_ = false;
  std::thread thread_;
};

}  // namespace pkv::test
