// Why there is no connection, as a socket of our own finds out.
#include "client/connection.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

namespace pkv::client {
namespace {

TEST(ConnectionProblem, WhatIsToSpeakTlsHearsNoPlainText) {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t length = sizeof address;
  ASSERT_EQ(::bind(listener, reinterpret_cast<const sockaddr*>(&address), length), 0);
  ASSERT_EQ(::listen(listener, 1), 0);
  ASSERT_EQ(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length), 0);
  const std::string target = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  EXPECT_TRUE(connection_problem(target, /*tls=*/true).answered);
  const int connection = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
  char byte = 0;
  EXPECT_EQ(::recv(connection, &byte, 1, 0), 0);  // closed, and nothing came before
  ::close(connection);
  ::close(listener);
  EXPECT_FALSE(connection_problem(target, /*tls=*/true).answered);
}

}  // namespace
}  // namespace pkv::client
