// Takes connections for a gRPC server and turns away those beyond a limit, which gRPC 1.51 does not know, and of one
// network (peer_network()) those beyond half of it and one: so that no host locks the others out. gRPC also
// gives up a port for good where there is no file descriptor for a connection; here the connection waits until there is
// one.
#pragma once

#include <grpcpp/grpcpp.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/rpc/connection_counts.h"

namespace pkv {

class ConnectionListener {
 public:
  // Listens on HOST:PORT, the value of the setting `key`; port 0 takes a free one, :: and 0.0.0.0 are all addresses of
  // the machine. UNAVAILABLE naming `key`, with the reason and what to do.
  static absl::StatusOr<std::unique_ptr<ConnectionListener>> open(const std::string& key, const std::string& listen,
                                                                  size_t max_connections);
  ~ConnectionListener();
  ConnectionListener(const ConnectionListener&) = delete;
  ConnectionListener& operator=(const ConnectionListener&) = delete;

  int port() const;
  // Hands connections to gRPC from now on. Its server must have been started, and outlive stop().
  void start(std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor);
  // Closes the port. Connections that there are stay gRPC's.
  void stop();
  // Of those that were handed on. Thread-safe.
  ConnectionCounts counts();

 private:
  // A socket that gRPC was given. Once gRPC has closed it, the descriptor is free or another file's.
  struct Given {
    int fd = -1;
    uint64_t inode = 0;
    uint64_t network = 0;
  };

  explicit ConnectionListener(size_t max_connections) : max_connections_(max_connections) {}
  void run();
  bool take(int listener);
  bool count(int fd, uint64_t network);
  bool is_full(uint64_t network) const;
  void forget_closed();

  const size_t max_connections_;
  std::vector<int> listeners_;
  int wake_ = -1;  // an eventfd: the end
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor_;
  std::mutex mutex_;  // guards the next three
  std::vector<Given> given_;
  absl::Time looked_through_ = absl::InfinitePast();
  uint64_t refused_ = 0;
  std::thread thread_;
};

}  // namespace pkv
