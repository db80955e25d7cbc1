// An HTTP/1.1 server with the limits that a port on a network needs. One thread serves all connections without waiting
// for any of them, so that slow or silent clients cost nobody else anything; what a connection may hold and how long
// each of its steps may take is bounded.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/api/tls_files.h"
#include "server/http/http_message.h"

namespace pkv {

// What no handler is asked about.
struct HttpRefusal {
  int status;
  std::string_view code;  // of the kind, in capitals
  std::string remedy;     // a sentence
  // Which of HttpServerOptions sets the limit that is the reason; empty: none does.
  std::string_view option = {};
};

struct HttpServerOptions {
  std::string listen;  // HOST:PORT, port 0: a free one; :: and 0.0.0.0 are all addresses of the machine
  // Further ones take the place of the oldest whose client is not waiting for an answer; where all are, they get a 503.
  size_t max_connections = 64;
  uint32_t max_header_bytes = 8 << 10;
  uint64_t max_body_bytes = 0;
  // Of all bodies that are being read. Where there are more, one after another is a 503: of the network that sends most
  // of them the one that has waited longest for its next bytes.
  uint64_t max_arriving_bytes = 0;
  // A request has to be there this long after the connection or the answer before, and each part of an answer has to be
  // taken in this time.
  double idle_seconds = 10;
  std::shared_ptr<const TlsFiles> tls = nullptr;                    // null: plain text
  bool keep_alive = false;                                          // more than one request a connection
  int nice = 0;                                                     // of the server's thread
  std::function<HttpResponse(const HttpRefusal& refusal)> refusal;  // the answer
  // Whether the body of the request with this head is to be read. Where it is not, the handler is called without it,
  // and the connection ends. Called on the server's thread; null: every one is.
  std::function<bool(const HttpRequest& head)> wants_body;
};

// Called on the server's thread, which it must not hold up. The answer may come later, from any thread.
using HttpHandler = std::function<void(HttpRequest request, std::shared_ptr<HttpExchange> exchange)>;

class HttpServer {
 public:
  // UNAVAILABLE, with the system's reason, where the address cannot be had.
  static absl::StatusOr<std::unique_ptr<HttpServer>> start(const HttpServerOptions& options, HttpHandler handler);
  ~HttpServer();  // at once, whatever the clients do
  int port() const;
  // Until no answer is under way any more, for `seconds` at most. New requests are served meanwhile.
  void await_answers(double seconds);

 private:
  class Listener;
  explicit HttpServer(std::shared_ptr<Listener> listener);
  std::shared_ptr<Listener> listener_;
};

}  // namespace pkv
