// One TCP connection to this machine, for requests written out by hand.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

namespace pkv::test {

class HttpConnection {
 public:
  // `from`: the client's address, 127.x.y.z.
  explicit HttpConnection(int port, const char* from = "127.0.0.1")
      : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in own{.sin_family = AF_INET};
    EXPECT_EQ(::inet_pton(AF_INET, from, &own.sin_addr), 1);
    EXPECT_EQ(::bind(socket_, reinterpret_cast<const sockaddr*>(&own), sizeof(own)), 0);
    const sockaddr_in address{
        .sin_family = AF_INET, .sin_port = htons(static_cast<uint16_t>(port)), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    EXPECT_EQ(::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  }
  ~HttpConnection() { ::close(socket_); }
  HttpConnection(const HttpConnection&) = delete;
  HttpConnection& operator=(const HttpConnection&) = delete;

  void send(const std::string& text) {
    EXPECT_EQ(::send(socket_, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }
  // What has come, at least one byte of it; empty where the server has closed.
  std::string read() {
    char buffer[4096];
    const ssize_t got = ::recv(socket_, buffer, sizeof(buffer), 0);
    return std::string(buffer, got > 0 ? static_cast<size_t>(got) : 0);
  }
  // Nothing more is sent, and nothing read.
  void shut() { ::shutdown(socket_, SHUT_RDWR); }
  // Sends `text` and reads until the server closes.
  std::string ask(const std::string& text) {
    send(text);
    std::string reply;
    for (std::string part; !(part = read()).empty();) reply += part;
    return reply;
  }

 private:
  int socket_;
};

// The whole reply to a GET of `path`.
inline std::string http_get(int port, const std::string& path) {
  return HttpConnection(port).ask("GET " + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
}

}  // namespace pkv::test
