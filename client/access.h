// What a connection to a server needs beside the address: an API key, and TLS.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

namespace pkv::client {

struct Access {
  std::string api_key;  // goes with every call; empty: none
  bool tls = false;
  // PEM. Of the authorities that the server's certificate may be signed by, empty: the system's; and of the
  // certificate, with its private key, that the client shows, empty: none.
  std::string ca, certificate, private_key;
};

std::shared_ptr<grpc::Channel> open_channel(const std::string& target, const Access& access,
                                            const grpc::ChannelArguments& arguments);

}  // namespace pkv::client
