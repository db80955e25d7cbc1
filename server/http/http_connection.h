// One connection of an HTTP server. Everything happens on the server's thread but for what HttpExchange says. Included
// by the server alone: Boost's headers compile slowly.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "server/http/http_server.h"
#include "server/http/http_stream.h"

namespace pkv {

// What a connection knows of its server.
class HttpConnections {
 public:
  HttpConnections(const HttpServerOptions& server_options, HttpHandler answer)
      : options(server_options), handler(std::move(answer)) {}
  virtual ~HttpConnections() = default;
  virtual void forget(const class HttpConnection* connection) = 0;
  // Drops bodies until those that are being read are within their limit.
  virtual void drop_bodies() = 0;

  const HttpServerOptions options;
  const HttpHandler handler;
  bool accepting = false;  // it waits for a connection; here, since what waits in the context lowers it
  boost::asio::io_context context{1};
  uint64_t arriving_bytes = 0;        // of the bodies that are being read
  std::atomic<size_t> under_way = 0;  // answers
  std::atomic<bool> stopped = false;  // the thread has ended
};

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  // `tls`: null for plain text.
  HttpConnection(HttpStream::Socket socket, std::shared_ptr<boost::asio::ssl::context> tls,
                 std::shared_ptr<HttpConnections> server);
  ~HttpConnection();

  void start();
  // Instead of start(): one connection too many.
  void turn_away();
  void close();
  // Whether its client waits for an answer that is not complete yet.
  bool answering() const { return exchange_ != nullptr || sending_; }
  uint64_t network() const { return network_; }  // peer_network()
  // Of the body that is being read.
  uint64_t arriving_bytes() const { return arriving_bytes_; }
  std::chrono::steady_clock::time_point arrived_last() const { return arrived_last_; }
  // Reads it no further: the client is told that too many are arriving.
  void drop_body();

 private:
  using Error = boost::system::error_code;
  class Exchange;

  void shake_hands(std::function<void()> then);
  void read_head();
  void head_is_there(Error error);
  void read_body();
  void body_has_grown(Error error);
  HttpRequest request_head() const;
  void dispatch();
  void refuse(const HttpRefusal& refusal);
  void watch();
  void watched(Error error, size_t bytes);
  std::string head_of(const HttpResponse& response, const std::string& length);
  std::string text_of(const HttpResponse& response);
  void send(std::string bytes, HttpExchange::Done done);
  void answered(const HttpExchange::Done& done, bool sent);
  void say_farewell();
  void arm(std::chrono::duration<double> time);
  void disarm();
  void count_arriving(uint64_t bytes);

  const std::shared_ptr<HttpConnections> server_;
  HttpStream stream_;
  boost::asio::steady_timer deadline_;
  boost::beast::flat_buffer buffer_;
  std::optional<boost::beast::http::request_parser<boost::beast::http::string_body>> parser_;
  std::string peer_;
  uint64_t network_ = 0;
  uint64_t arriving_bytes_ = 0;
  std::chrono::steady_clock::time_point arrived_last_;  // bytes of the body
  bool dropped_ = false;                                // the body
  std::string outgoing_;                                // of the write under way
  bool sending_ = false;
  uint64_t step_ = 0;  // which the deadline is for
  std::shared_ptr<Exchange> exchange_;
  bool head_only_ = false;  // HEAD asks for an answer without its body
  bool keep_alive_ = false;
  bool chunked_ = false;
  bool watching_ = false;  // a read is pending that would tell of the client's leaving
  bool leaving_ = false;   // only waits for the client to close
};

}  // namespace pkv
