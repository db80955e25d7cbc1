// Who counts as one where hosts share something out among themselves: an IPv4 address, or a /64 of IPv6, of which one
// host may have all addresses.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <cstring>

namespace pkv {

// 0: neither kind. Both kinds are apart, as no network is in ::/32.
inline uint64_t peer_network(const sockaddr& address) {
  if (address.sa_family == AF_INET) return ntohl(reinterpret_cast<const sockaddr_in&>(address).sin_addr.s_addr);
  if (address.sa_family != AF_INET6) return 0;
  const in6_addr& six = reinterpret_cast<const sockaddr_in6&>(address).sin6_addr;
  uint64_t network = 0;
  if (!IN6_IS_ADDR_V4MAPPED(&six)) {
    for (size_t i = 0; i < sizeof network; ++i) network = network << 8 | six.s6_addr[i];
    return network;
  }
  for (size_t i = sizeof six - sizeof(in_addr); i < sizeof six; ++i) network = network << 8 | six.s6_addr[i];
  return network;
}

}  // namespace pkv
