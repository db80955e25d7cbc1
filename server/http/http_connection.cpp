// Boost.Beast parses; what is written is little and written by hand.
#include "server/http/http_connection.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/status.hpp>
#include <new>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api/peer_network.h"

namespace pkv {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;

constexpr size_t kReadBytes = 16 << 10;
constexpr size_t kHeadBytes = 4 << 10;  // room for a head and a short body; Beast reads as much as there is room for
constexpr std::chrono::seconds kMaxFarewell{1};  // once the answer is written

// The header's value; empty: it is missing, or there is more than one.
std::string header(const http::request<http::string_body>& request, boost::beast::string_view name) {
  const auto [first, last] = request.equal_range(name);
  if (first == last || std::next(first) != last) return {};
  return std::string(first->value());
}

// Compressed, say.
bool is_encoded(const http::request<http::string_body>& request) {
  const auto [first, last] = request.equal_range(http::field::content_encoding);
  return std::any_of(first, last, [](const auto& field) { return !boost::beast::iequals(field.value(), "identity"); });
}

// Without scheme and host, which a target may begin with (RFC 9112, 3.2.2), and without the query.
std::string path_of(std::string_view target) {
  target = target.substr(0, target.find('?'));
  const size_t scheme = target.starts_with('/') ? std::string_view::npos : target.find("://");
  if (scheme == std::string_view::npos) return std::string(target);
  const size_t path = target.find('/', scheme + 3);
  return path == std::string_view::npos ? "/" : std::string(target.substr(path));
}

std::string chunk(const std::string& bytes) {
  return bytes.empty() ? std::string() : absl::StrCat(absl::Hex(bytes.size()), "\r\n", bytes, "\r\n");
}

// Of IPv4 as such, which a listener of both kinds has as ::ffff:1.2.3.4.
asio::ip::address address_of(const tcp::endpoint& peer) {
  const asio::ip::address address = peer.address();
  if (!address.is_v6() || !address.to_v6().is_v4_mapped()) return address;
  return asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6());
}

}  // namespace

// Hands calls of other threads to the server's, as long as they are about the request that is being answered.
class HttpConnection::Exchange final : public HttpExchange, public std::enable_shared_from_this<Exchange> {
 public:
  explicit Exchange(std::shared_ptr<HttpConnection> connection) : connection_(std::move(connection)) {
    ++connection_->server_->under_way;
  }

  void respond(HttpResponse response, Done done) override {
    run(std::move(done),
        [this, response = std::move(response)](const Done& sent) { finish(connection_->text_of(response), sent); });
  }
  void begin(HttpResponse head, Done done) override {
    run(std::move(done), [this, head = std::move(head)](const Done& sent) {
      HttpConnection& connection = *connection_;
      if (!connection.chunked_) connection.keep_alive_ = false;
      const std::string text = connection.head_of(head, connection.chunked_ ? "Transfer-Encoding: chunked" : "");
      connection.send(text + part(head.body), sent);
    });
  }
  void write(std::string bytes, Done done) override {
    run(std::move(done), [this, bytes = std::move(bytes)](const Done& sent) { connection_->send(part(bytes), sent); });
  }
  void end(std::string last, Done done) override {
    run(std::move(done), [this, last = std::move(last)](const Done& sent) {
      finish(part(last) + (connection_->chunked_ ? "0\r\n\r\n" : ""), sent);
    });
  }
  void when_gone(std::function<void()> gone) override {
    post([this, gone = std::move(gone)]() mutable {
      if (!open_ && !complete_) return gone();
      gone_ = std::move(gone);
    });
  }

  // On the server's thread: the client has left.
  void lose() {
    open_ = false;
    --connection_->server_->under_way;
    if (const auto gone = std::exchange(gone_, nullptr)) gone();
  }

 private:
  // The connection lives as long as this does, and this as long as the function waits.
  template <typename Function>
  void post(Function function) {
    HttpConnections& server = *connection_->server_;
    if (server.stopped) return;  // nobody is left to run it
    asio::post(server.context, [self = shared_from_this(), function = std::move(function)]() mutable { function(); });
  }
  // `send` hands `done` on. Without memory for that the connection ends.
  template <typename Send>
  void run(Done done, Send send) {
    post([this, done = std::move(done), send = std::move(send)] {
      if (!open_) return done(false);
      try {
        send(done);
      } catch (const std::bad_alloc&) {
        connection_->close();
        done(false);
      }
    });
  }
  std::string part(const std::string& bytes) const { return connection_->chunked_ ? chunk(bytes) : bytes; }
  void finish(const std::string& bytes, const Done& done) {
    HttpConnection& connection = *connection_;
    connection.send(bytes, [&connection, done](bool sent) {
      --connection.server_->under_way;
      connection.answered(done, sent);
    });
    open_ = false;
    complete_ = true;
    gone_ = nullptr;
    connection.exchange_ = nullptr;
  }

  const std::shared_ptr<HttpConnection> connection_;
  // Of the server's thread.
  bool open_ = true;       // the client waits for more
  bool complete_ = false;  // it was given all of it
  std::function<void()> gone_;
};

HttpConnection::HttpConnection(tcp::socket socket, std::shared_ptr<asio::ssl::context> tls,
                               std::shared_ptr<HttpConnections> server)
    : server_(std::move(server)),
      stream_(std::move(socket), std::move(tls)),
      deadline_(server_->context),
      buffer_(server_->options.max_header_bytes + kReadBytes) {
  Error ignored;
  stream_.socket().set_option(tcp::no_delay(true), ignored);
  const tcp::endpoint peer = stream_.socket().remote_endpoint(ignored);
  peer_ = absl::StrCat(address_of(peer).to_string(ignored), ":", peer.port());
  network_ = peer_network(*peer.data());
}

HttpConnection::~HttpConnection() = default;

void HttpConnection::start() {
  arm(std::chrono::duration<double>(server_->options.idle_seconds));
  shake_hands([this] { read_head(); });
}

void HttpConnection::turn_away() {
  arm(kMaxFarewell);
  shake_hands([this] {
    refuse({503, "TOO_MANY_CONNECTIONS",
            absl::StrCat("there are too many connections, at most ", server_->options.max_connections,
                         "; try again later"),
            "max_connections"});
  });
}

void HttpConnection::shake_hands(std::function<void()> then) {
  stream_.async_handshake([self = shared_from_this(), then = std::move(then)](Error error) {
    if (error) return self->close();
    then();
  });
}

void HttpConnection::close() {
  if (!stream_.socket().is_open()) return;
  const auto self = shared_from_this();
  Error ignored;
  stream_.socket().close(ignored);
  disarm();
  count_arriving(0);
  server_->forget(this);
  if (const auto exchange = std::exchange(exchange_, nullptr)) exchange->lose();
}

// The time for the step that begins now; a step that takes longer is the connection's last. std::bad_alloc: it is
// closed, for it has no deadline any more.
void HttpConnection::arm(std::chrono::duration<double> time) try {
  deadline_.expires_after(std::chrono::duration_cast<std::chrono::nanoseconds>(time));
  deadline_.async_wait([self = shared_from_this(), step = ++step_](Error) {
    if (self->step_ == step) self->close();
  });
} catch (const std::bad_alloc&) {
  close();
  throw;
}

void HttpConnection::disarm() {
  ++step_;
  deadline_.cancel();
}

void HttpConnection::count_arriving(uint64_t bytes) {
  server_->arriving_bytes += bytes - arriving_bytes_;
  arriving_bytes_ = bytes;
  arrived_last_ = std::chrono::steady_clock::now();
}

void HttpConnection::read_head() {
  parser_.emplace();
  buffer_.reserve(kHeadBytes);
  parser_->header_limit(server_->options.max_header_bytes);
  parser_->body_limit(server_->options.max_body_bytes);
  http::async_read_header(stream_, buffer_, *parser_,
                          [self = shared_from_this()](Error error, size_t) { self->head_is_there(error); });
}

void HttpConnection::head_is_there(Error error) {
  head_only_ = parser_->get().method() == http::verb::head;
  if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    return refuse(
        {431, "HEAD_TOO_LARGE",
         absl::StrCat("the head of the request has to be at most ", server_->options.max_header_bytes, " bytes"),
         "max_header_bytes"});
  }
  if (error == http::error::body_limit) return body_has_grown(error);
  if (error.category() == make_error_code(http::error::bad_method).category() && error != http::error::end_of_stream &&
      error != http::error::partial_message) {
    return refuse({400, "BAD_INPUT", "this is no HTTP request"});
  }
  if (error) return close();  // the client is gone
  const auto& request = parser_->get();
  chunked_ = request.version() >= 11;
  keep_alive_ = server_->options.keep_alive && chunked_ && request.keep_alive();
  if (!parser_->is_done() && server_->options.wants_body && !server_->options.wants_body(request_head())) {
    keep_alive_ = false;
    return dispatch();
  }
  if (!parser_->is_done() && is_encoded(request)) {
    return refuse({415, "UNSUPPORTED_ENCODING", "the body has a Content-Encoding; send it without one"});
  }
  if (!boost::beast::iequals(request[http::field::expect], "100-continue")) return read_body();
  send("HTTP/1.1 100 Continue\r\n\r\n", [self = shared_from_this()](bool sent) {
    if (sent) self->read_body();
  });
}

void HttpConnection::read_body() {
  if (parser_->is_done()) return dispatch();
  buffer_.reserve(kReadBytes);
  http::async_read_some(stream_, buffer_, *parser_,
                        [self = shared_from_this()](Error error, size_t) { self->body_has_grown(error); });
}

void HttpConnection::body_has_grown(Error error) {
  if (error == http::error::body_limit) {
    return refuse({413, "BODY_TOO_LARGE",
                   absl::StrCat("the body has to be at most ", server_->options.max_body_bytes, " bytes"),
                   "max_body_bytes"});
  }
  if (error.category() == make_error_code(http::error::bad_method).category() &&
      error != http::error::partial_message && error != http::error::end_of_stream) {
    return refuse({400, "BAD_INPUT", "the body is not as its head says"});
  }
  if ((error && !dropped_) || !stream_.socket().is_open()) return close();
  if (!dropped_) {
    count_arriving(parser_->get().body().size());
    server_->drop_bodies();
  }
  if (!dropped_) return read_body();
  refuse({503, "TOO_MANY_BODIES",
          absl::StrCat("too many bodies are arriving at once, at most ", server_->options.max_arriving_bytes,
                       " bytes together; try again later"),
          "max_arriving_bytes"});
}

void HttpConnection::drop_body() {
  dropped_ = true;
  count_arriving(0);
  Error ignored;
  stream_.socket().cancel(ignored);  // body_has_grown() is called now, where it was waited for
}

HttpRequest HttpConnection::request_head() const {
  const auto& message = parser_->get();
  return {.method = head_only_ ? "GET" : std::string(message.method_string()),
          .path = path_of(std::string(message.target())),
          .body = {},
          .peer = peer_,
          .authorization = header(message, "Authorization"),
          .request_id = header(message, "X-Request-Id"),
          .traceparent = header(message, "traceparent")};
}

void HttpConnection::dispatch() {
  count_arriving(0);
  HttpRequest request = request_head();
  request.body = std::move(parser_->get().body());
  parser_.reset();
  exchange_ = std::make_shared<Exchange>(shared_from_this());
  watch();
  server_->handler(std::move(request), exchange_);
  disarm();  // last: without memory for the handler the deadline is left
}

// No request of the handler's: the answer, and the end.
void HttpConnection::refuse(const HttpRefusal& refusal) {
  const HttpResponse response = server_->options.refusal(refusal);
  keep_alive_ = false;
  count_arriving(0);
  parser_.reset();
  send(text_of(response), [self = shared_from_this()](bool sent) { self->answered([](bool) {}, sent); });
}

// Reads while an answer is made: the only way to hear at once that the client is gone. One that sends more than
// kReadBytes of its next requests ahead is not watched any more; then a write has to fail.
void HttpConnection::watch() {
  if (watching_ || buffer_.size() >= kReadBytes) return;
  watching_ = true;
  stream_.async_read_some(buffer_.prepare(kReadBytes - buffer_.size()),
                          [self = shared_from_this()](Error error, size_t bytes) { self->watched(error, bytes); });
}

void HttpConnection::watched(Error error, size_t bytes) {
  watching_ = false;
  const bool cancelled = error == asio::error::operation_aborted && stream_.socket().is_open();  // by answered()
  if (error && !cancelled) return close();
  if (leaving_) return watch();
  buffer_.commit(bytes);
  if (!sending_ && exchange_ == nullptr) return read_head();
  watch();
}

std::string HttpConnection::head_of(const HttpResponse& response, const std::string& length) {
  const auto reason = http::obsolete_reason(static_cast<http::status>(response.status));
  return absl::StrCat("HTTP/1.1 ", response.status, " ", std::string(reason),
                      "\r\nContent-Type: ", response.content_type, "\r\n", length, length.empty() ? "" : "\r\n",
                      response.headers, keep_alive_ ? "" : "Connection: close\r\n", "\r\n");
}

std::string HttpConnection::text_of(const HttpResponse& response) {
  const std::string head = head_of(response, absl::StrCat("Content-Length: ", response.body.size()));
  return head_only_ ? head : head + response.body;
}

void HttpConnection::send(std::string bytes, HttpExchange::Done done) {
  outgoing_ = std::move(bytes);
  sending_ = true;
  arm(std::chrono::duration<double>(server_->options.idle_seconds));
  asio::async_write(stream_, asio::buffer(outgoing_),
                    [self = shared_from_this(), done = std::move(done)](Error error, size_t) {
                      self->outgoing_ = {};
                      self->sending_ = false;
                      if (error) self->close();
                      done(!error);
                      if (self->exchange_ != nullptr) self->disarm();
                    });
}

// The answer is complete: the next request, or the end.
void HttpConnection::answered(const HttpExchange::Done& done, bool sent) {
  done(sent);
  if (!sent) return;
  if (!keep_alive_) return say_farewell();
  arm(std::chrono::duration<double>(server_->options.idle_seconds));
  if (!watching_) return read_head();
  if (buffer_.size() == 0) return;  // watched() reads it when it comes
  Error ignored;
  stream_.socket().cancel(ignored);  // its next request may be there whole, and nothing more come
}

// Closing first would make the system take back what the client has not read yet.
void HttpConnection::say_farewell() {
  leaving_ = true;
  arm(kMaxFarewell);
  buffer_.clear();
  stream_.async_end([self = shared_from_this()](Error) { self->watch(); });
}

}  // namespace pkv
