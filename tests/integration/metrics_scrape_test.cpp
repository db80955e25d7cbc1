// /metrics over HTTP after some traffic, and promtool's opinion of it where promtool is installed.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "tests/integration/server_fixture.h"

namespace pkv {
namespace {

std::string http_get(int port, const std::string& path) {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{
      .sin_family = AF_INET, .sin_port = htons(static_cast<uint16_t>(port)), .sin_addr = {htonl(INADDR_LOOPBACK)}};
  std::string reply;
  if (::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) {
    const std::string request = "GET " + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    EXPECT_EQ(::send(socket, request.data(), request.size(), 0), static_cast<ssize_t>(request.size()));
    char buffer[4096];
    for (ssize_t got; (got = ::recv(socket, buffer, sizeof(buffer), 0)) > 0;)
      reply.append(buffer, static_cast<size_t>(got));
  }
  ::close(socket);
  return reply;
}

TEST_F(ServerTest, MetricsTellWhatHappened) {
  start_and_load([](Config& config) { config.metrics.listen = "127.0.0.1:0"; });
  pb::GenerateRequest wish = request("hello world", 7);
  pb::GenerateResponse reply;
  ASSERT_TRUE(generate(wish, reply).ok());
  wish.set_priority(1);
  EXPECT_FALSE(generate(wish, reply).ok());
  ASSERT_TRUE(eventually_idle());

  const std::string response = http_get(app_->metrics_port(), "/metrics");
  ASSERT_THAT(response, ::testing::StartsWith("HTTP/1.1 200"));
  for (const char* line : {"pyramidkv_requests_running 0", "pyramidkv_requests_total{policy=\"full\",code=\"OK\"} 1",
                           "pyramidkv_requests_total{policy=\"none\",code=\"UNIMPLEMENTED\"} 1",
                           "pyramidkv_requests_rejected_total{reason=\"UNIMPLEMENTED\"} 1",
                           "pyramidkv_requests_finished_total{policy=\"full\",finish_reason=\"length\"} 1",
                           "pyramidkv_generation_tokens_total{policy=\"full\"} 7", "pyramidkv_kv_cache_usage_ratio 0",
                           "pyramidkv_kv_cache_pool_bytes 134217728",
                           "pyramidkv_model_info{model=\"tiny\",architecture=\"llama\",weights=\"F32\"} 1"}) {
    EXPECT_THAT(response, ::testing::HasSubstr(std::string(line) + "\n"));
  }
}

TEST_F(ServerTest, PromtoolAcceptsTheMetrics) {
  if (std::system("promtool --version > /dev/null 2>&1") != 0) GTEST_SKIP() << "promtool is not installed";
  start_and_load([](Config& config) { config.metrics.listen = "127.0.0.1:0"; });
  const std::string response = http_get(app_->metrics_port(), "/metrics");
  const size_t body = response.find("\r\n\r\n");
  ASSERT_NE(body, std::string::npos);
  std::FILE* promtool = popen("promtool check metrics", "w");
  ASSERT_NE(promtool, nullptr);
  const std::string text = response.substr(body + 4);
  EXPECT_EQ(std::fwrite(text.data(), 1, text.size(), promtool), text.size());
  EXPECT_EQ(pclose(promtool), 0);
}

}  // namespace
}  // namespace pkv
