// An address to listen at, as the configuration has it.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace pkv {

struct ListenAddress {
  // HOST:PORT, an IPv6 address in brackets.
  explicit ListenAddress(const std::string& listen) {
    const size_t colon = listen.rfind(':');
    std::string host = listen.substr(0, colon);
    if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
    if (host == "0.0.0.0") hosts.emplace_back("::");
    hosts.push_back(std::move(host));
    port = listen.substr(colon + 1);
  }

  // To be tried in this order. 0.0.0.0 is every address, and so :: (with IPv4) where there is IPv6.
  std::vector<std::string> hosts;
  std::string port;
};

}  // namespace pkv
