// What one connection reads from and writes to: its socket, or TLS over it. Of the server's thread.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <memory>
#include <optional>
#include <utility>

namespace pkv {

class HttpStream {
 public:
  using Error = boost::system::error_code;
  using Socket = boost::asio::ip::tcp::socket;
  using executor_type = Socket::executor_type;

  // `tls`: null for plain text.
  HttpStream(Socket socket, std::shared_ptr<boost::asio::ssl::context> tls)
      : socket_(std::move(socket)), context_(std::move(tls)) {
    if (context_ != nullptr) tls_.emplace(socket_, *context_);
  }
  HttpStream(const HttpStream&) = delete;  // tls_ points at socket_
  HttpStream& operator=(const HttpStream&) = delete;

  executor_type get_executor() { return socket_.get_executor(); }
  Socket& socket() { return socket_; }

  // Once, before anything else. `done` is called with the error; at once where there is no TLS.
  template <typename Handler>
  void async_handshake(Handler done) {
    if (!tls_) return done(Error());
    tls_->async_handshake(boost::asio::ssl::stream_base::server, std::move(done));
  }
  // Tells the client that nothing more comes.
  template <typename Handler>
  void async_end(Handler done) {
    if (tls_) return tls_->async_shutdown(std::move(done));
    Error error;
    socket_.shutdown(Socket::shutdown_send, error);
    done(error);
  }
  template <typename Buffers, typename Handler>
  void async_read_some(const Buffers& buffers, Handler&& handler) {
    tls_ ? tls_->async_read_some(buffers, std::forward<Handler>(handler))
         : socket_.async_read_some(buffers, std::forward<Handler>(handler));
  }
  template <typename Buffers, typename Handler>
  void async_write_some(const Buffers& buffers, Handler&& handler) {
    tls_ ? tls_->async_write_some(buffers, std::forward<Handler>(handler))
         : socket_.async_write_some(buffers, std::forward<Handler>(handler));
  }

 private:
  Socket socket_;
  const std::shared_ptr<boost::asio::ssl::context> context_;
  std::optional<boost::asio::ssl::stream<Socket&>> tls_;
};

}  // namespace pkv
