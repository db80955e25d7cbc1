// A small HTTP server for probes and scrapes: GET, short requests, one answer per connection. One thread serves all
// connections without waiting for any of them, so that slow or silent clients cost nobody else anything; what a
// connection may hold and how long it may last is bounded.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"

namespace pkv {

struct HttpResponse {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
};

class HttpServer {
 public:
  // `handler` is called on the server's thread with the path of a GET request, its query cut off; no other method gets
  // there. UNAVAILABLE, with the system's reason, where `listen` (HOST:PORT, port 0: a free one) cannot be had.
  static absl::StatusOr<std::unique_ptr<HttpServer>> start(
      const std::string& listen, std::function<HttpResponse(const std::string& path)> handler);
  ~HttpServer();  // at once, whatever the clients do
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;
  int port() const { return port_; }

 private:
  struct Connection;
  explicit HttpServer(std::function<HttpResponse(const std::string& path)> handler);
  absl::Status listen_on(const std::string& listen);
  void run();
  void accept_one();
  void advance(Connection& connection);
  void read_some(Connection& connection);
  void write_some(Connection& connection);
  void discard_some(Connection& connection);
  std::string answer(const std::string& head) const;

  std::function<HttpResponse(const std::string& path)> handler_;
  int listener_ = -1;
  int wake_ = -1;  // an eventfd: readable when the thread is to end
  int port_ = 0;
  std::vector<std::unique_ptr<Connection>> connections_;  // the oldest first
  std::jthread thread_;
};

}  // namespace pkv
