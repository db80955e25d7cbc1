// Boost.Beast with the limits that a port on a network needs. The one file that includes it: it compiles slowly.
#include "server/http/http_server.h"

#include <sys/resource.h>

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <exception>
#include <list>
#include <thread>
#include <utility>

namespace pkv {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;

// One more takes the place of the oldest: who asks and reads is served at once, so the oldest are those who do not.
constexpr size_t kMaxConnections = 64;
constexpr uint32_t kMaxHeadBytes = 8 << 10;
constexpr std::chrono::seconds kMaxLife{10};
constexpr std::chrono::seconds kMaxFarewell{1};  // once the answer is written
// When the system has no more descriptors for us.
constexpr std::chrono::milliseconds kAcceptPause{100};
// Whoever computes goes first: a scrape may take a few milliseconds longer, a token may not.
constexpr int kNice = 10;

// Reads a request's head, then writes the answer, then waits for the client to close: closing first would make the
// system take back what the client has not read yet.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(tcp::socket socket, const HttpHandler& handler) : stream_(std::move(socket)), handler_(handler) {
    parser_.header_limit(kMaxHeadBytes);
  }

  void start() {
    stream_.expires_after(kMaxLife);
    http::async_read_header(stream_, buffer_, parser_,
                            [self = shared_from_this()](error_code error, size_t) { self->answer(error); });
  }
  void close() { stream_.close(); }

 private:
  void answer(error_code error) {
    if (!error) {
      respond(parser_.get());
    } else if (error == http::error::header_limit || error == http::error::buffer_overflow) {
      refuse(http::status::request_header_fields_too_large);
    } else if (error.category() == make_error_code(http::error::bad_method).category() &&
               error != http::error::end_of_stream && error != http::error::partial_message) {
      refuse(http::status::bad_request);
    } else {
      return;  // the client is gone, or took too long
    }
    http::async_write(stream_, response_, [self = shared_from_this()](error_code failed, size_t) {
      if (!failed) self->say_farewell();
    });
  }

  void respond(const http::request<http::empty_body>& request) {
    if (request.method() != http::verb::get) {
      response_.set(http::field::allow, "GET");
      return refuse(http::status::method_not_allowed);
    }
    const std::string target(request.target());
    HttpResponse response = handler_(target.substr(0, target.find('?')));
    finish(static_cast<http::status>(response.status), response.content_type, std::move(response.body));
  }

  void refuse(http::status status) {
    finish(status, HttpResponse().content_type, std::string(http::obsolete_reason(status)) + "\n");
  }

  void finish(http::status status, const std::string& content_type, std::string body) {
    response_.result(status);
    response_.set(http::field::content_type, content_type);
    response_.body() = std::move(body);
    response_.prepare_payload();
    response_.keep_alive(false);
  }

  void say_farewell() {
    error_code ignored;
    stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
    stream_.expires_after(kMaxFarewell);
    discard();
  }

  void discard() {
    stream_.async_read_some(asio::buffer(discarded_), [self = shared_from_this()](error_code error, size_t) {
      if (!error) self->discard();
    });
  }

  beast::tcp_stream stream_;
  const HttpHandler& handler_;
  beast::flat_buffer buffer_{kMaxHeadBytes};
  http::request_parser<http::empty_body> parser_;
  http::response<http::string_body> response_;
  std::array<char, 4096> discarded_;
};

}  // namespace

class HttpServer::Listener {
 public:
  explicit Listener(HttpHandler handler) : handler_(std::move(handler)) {}
  ~Listener() {
    context_.stop();
    if (thread_.joinable()) thread_.join();
  }

  error_code open(const std::string& listen) {
    const size_t colon = listen.rfind(':');
    std::string host = listen.substr(0, colon);
    if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
    error_code error;
    const auto found = tcp::resolver(context_).resolve(host, listen.substr(colon + 1), tcp::resolver::passive, error);
    if (error) return error;
    for (const auto& entry : found) {
      error = open(entry.endpoint());
      if (!error) break;
    }
    return error;
  }

  void run() {
    accept();
    thread_ = std::thread([this] {
      setpriority(PRIO_PROCESS, 0, kNice);  // of this thread alone, as Linux has it
      context_.run();
    });
  }

  int port() const { return acceptor_.local_endpoint().port(); }

 private:
  error_code open(const tcp::endpoint& endpoint) {
    error_code error;
    acceptor_.close(error);
    if (acceptor_.open(endpoint.protocol(), error)) return error;
    acceptor_.set_option(asio::socket_base::reuse_address(true), error);
    if (acceptor_.bind(endpoint, error)) return error;
    acceptor_.listen(asio::socket_base::max_listen_connections, error);
    return error;
  }

  void accept() {
    acceptor_.async_accept([this](error_code error, tcp::socket socket) {
      if (error) return pause();
      take(std::move(socket));
      accept();
    });
  }

  // Otherwise the listener stays readable and the loop would spin.
  void pause() {
    pause_.expires_after(kAcceptPause);
    pause_.async_wait([this](error_code) { accept(); });
  }

  void take(tcp::socket socket) {
    std::erase_if(connections_, [](const std::weak_ptr<Connection>& connection) { return connection.expired(); });
    if (connections_.size() >= kMaxConnections) {
      if (const auto oldest = connections_.front().lock()) oldest->close();
      connections_.pop_front();
    }
    const auto connection = std::make_shared<Connection>(std::move(socket), handler_);
    connections_.push_back(connection);
    connection->start();
  }

  const HttpHandler handler_;
  asio::io_context context_{1};
  tcp::acceptor acceptor_{context_};
  asio::steady_timer pause_{context_};
  std::list<std::weak_ptr<Connection>> connections_;  // the oldest first
  std::thread thread_;
};

HttpServer::HttpServer(std::unique_ptr<Listener> listener) : listener_(std::move(listener)) {}
HttpServer::~HttpServer() = default;
int HttpServer::port() const { return listener_->port(); }

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::start(const std::string& listen, HttpHandler handler) {
  try {
    auto listener = std::make_unique<Listener>(std::move(handler));
    if (const error_code error = listener->open(listen)) return absl::UnavailableError(error.message());
    listener->run();
    return std::unique_ptr<HttpServer>(new HttpServer(std::move(listener)));
  } catch (const std::exception& error) {  // no descriptors for the loop, or no thread
    return absl::UnavailableError(error.what());
  }
}

}  // namespace pkv
