// A small HTTP server for probes and scrapes: GET, short requests, one answer per connection. One thread serves all
// connections without waiting for any of them, so that slow or silent clients cost nobody else anything; what a
// connection may hold and how long it may last is bounded.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace pkv {

struct HttpResponse {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
};

// The path of a GET request, its query cut off, to its answer.
using HttpHandler = std::function<HttpResponse(const std::string& path)>;

class HttpServer {
 public:
  // `handler` is called on the server's thread; no other method gets there. UNAVAILABLE, with the system's reason,
  // where `listen` (HOST:PORT, port 0: a free one) cannot be had.
  static absl::StatusOr<std::unique_ptr<HttpServer>> start(const std::string& listen, HttpHandler handler);
  ~HttpServer();  // at once, whatever the clients do
  int port() const;

 private:
  class Listener;
  explicit HttpServer(std::unique_ptr<Listener> listener);
  std::unique_ptr<Listener> listener_;
};

}  // namespace pkv
