#include "server/http/http_server.h"

#include <sys/resource.h>

#include <algorithm>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/post.hpp>
#include <exception>
#include <list>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "server/api/errors.h"
#include "server/api/listen_address.h"
#include "server/http/http_connection.h"
#include "server/http/http_tls.h"

namespace pkv {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

// Beside the others: those that are told that there are too many.
constexpr size_t kMaxTurnedAway = 64;
// When the system has no more descriptors for us.
constexpr std::chrono::milliseconds kAcceptPause{100};

}  // namespace

class HttpServer::Listener final : public HttpConnections, public std::enable_shared_from_this<Listener> {
 public:
  using HttpConnections::HttpConnections;

  error_code open() {
    if (options.tls != nullptr) tls_.emplace(options.tls);
    const ListenAddress address(options.listen);
    error_code error;
    for (const std::string& host : address.hosts) {
      error = open(host, address.port);
      if (!error) break;
    }
    return error;
  }

  void run() {
    accept();
    thread_ = std::thread([this] {
      if (options.nice > 0) setpriority(PRIO_PROCESS, 0, options.nice);  // of this thread alone, as Linux has it
      while (!run_until_it_throws()) {
      }
    });
  }

  // Breaks off everything. What is left of it runs here, and lets go of the connections.
  void stop() {
    asio::post(context, [this] {
      error_code ignored;
      acceptor_.close(ignored);
      pause_.cancel();
      while (!connections_.empty()) connections_.front()->close();
    });
    if (thread_.joinable()) thread_.join();
    stopped = true;
    context.restart();
    context.poll();
  }

  int port() const { return acceptor_.local_endpoint().port(); }

  void forget(const HttpConnection* connection) override {
    connections_.remove_if([connection](const auto& other) { return other.get() == connection; });
  }

  void drop_bodies() override {
    while (arriving_bytes > options.max_arriving_bytes) {
      std::map<uint64_t, uint64_t> bytes;  // by network
      for (const auto& connection : connections_) bytes[connection->network()] += connection->arriving_bytes();
      const uint64_t most = std::ranges::max_element(bytes, {}, &std::pair<const uint64_t, uint64_t>::second)->first;
      HttpConnection* last = nullptr;
      for (const auto& connection : connections_) {
        if (connection->network() != most || connection->arriving_bytes() == 0) continue;
        if (last == nullptr || connection->arrived_last() < last->arrived_last()) last = connection.get();
      }
      last->drop_body();
    }
  }

 private:
  struct Lower {
    void operator()(bool* flag) const { *flag = false; }
  };
  // Goes with what waits for the next connection, which Asio drops where there is no memory for that connection.
  using Waiting = std::unique_ptr<bool, Lower>;

  // On the first address of `host` that can be had.
  error_code open(const std::string& host, const std::string& port) {
    error_code error;
    const auto found = tcp::resolver(context).resolve(host, port, tcp::resolver::passive, error);
    if (error) return error;
    for (const auto& entry : found) {
      error = open(entry.endpoint());
      if (!error) break;
    }
    return error;
  }

  error_code open(const tcp::endpoint& endpoint) {
    error_code error;
    acceptor_.close(error);
    if (acceptor_.open(endpoint.protocol(), error)) return error;
    if (endpoint.protocol() == tcp::v6()) acceptor_.set_option(asio::ip::v6_only(false), error);  // :: takes IPv4, too
    acceptor_.set_option(asio::socket_base::reuse_address(true), error);
    if (acceptor_.bind(endpoint, error)) return error;
    acceptor_.listen(asio::socket_base::max_listen_connections, error);
    return error;
  }

  // False: there was no memory for a step of some connection, which its deadline ends, or to accept the next.
  bool run_until_it_throws() {
    try {
      if (!accepting && acceptor_.is_open()) accept();
      context.restart();  // it has stopped where what threw was all it had
      context.run();
      return true;
    } catch (const std::bad_alloc&) {
      if (!accepting) absl::SleepFor(kMemoryPause);
      return false;
    }
  }

  void accept() {
    accepting = true;
    acceptor_.async_accept([this, waiting = Waiting(&accepting)](error_code error, tcp::socket socket) mutable {
      waiting.reset();
      if (!acceptor_.is_open()) return;
      if (error) return pause();
      accept();  // first: with the memory of the one that is done
      take(std::move(socket));
    });
  }

  // Otherwise the listener stays readable and the loop would spin.
  void pause() {
    pause_.expires_after(kAcceptPause);
    pause_.async_wait([this](error_code) {
      if (acceptor_.is_open() && !accepting) accept();
    });
  }

  // Without memory for it, OpenSSL's too, it is dropped.
  void take(tcp::socket socket) {
    std::shared_ptr<HttpConnection> connection;
    try {
      connection =
          std::make_shared<HttpConnection>(std::move(socket), tls_ ? tls_->context() : nullptr, shared_from_this());
      const bool room = connections_.size() < options.max_connections || close_oldest();
      if (!room && connections_.size() >= options.max_connections + kMaxTurnedAway) return;
      connections_.push_back(connection);
      room ? connection->start() : connection->turn_away();
    } catch (const std::exception&) {
      if (connection != nullptr) connection->close();
    }
  }

  // Of those whose client waits for no answer. False: there is none.
  bool close_oldest() {
    for (const std::shared_ptr<HttpConnection>& connection : connections_) {
      if (connection->answering()) continue;
      connection->close();
      return true;
    }
    return false;
  }

  std::optional<HttpTls> tls_;  // none: plain text
  tcp::acceptor acceptor_{context};
  asio::steady_timer pause_{context};
  std::list<std::shared_ptr<HttpConnection>> connections_;  // the oldest first
  std::thread thread_;
};

HttpServer::HttpServer(std::shared_ptr<Listener> listener) : listener_(std::move(listener)) {}
HttpServer::~HttpServer() { listener_->stop(); }
int HttpServer::port() const { return listener_->port(); }

void HttpServer::await_answers(double seconds) {
  const absl::Time end = absl::Now() + absl::Seconds(seconds);
  while (listener_->under_way > 0 && absl::Now() < end) absl::SleepFor(absl::Milliseconds(5));
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::start(const HttpServerOptions& options, HttpHandler handler) {
  try {
    auto listener = std::make_shared<Listener>(options, std::move(handler));
    if (const error_code error = listener->open()) return absl::UnavailableError(error.message());
    listener->run();
    return std::unique_ptr<HttpServer>(new HttpServer(std::move(listener)));
  } catch (const std::exception& error) {  // no descriptors for the loop, or no thread
    return absl::UnavailableError(error.what());
  }
}

}  // namespace pkv
