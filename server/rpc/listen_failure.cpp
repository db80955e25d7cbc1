#include "server/rpc/listen_failure.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"

namespace pkv {
namespace {

// errno of listening on `address`; 0: it works.
int try_to_listen(const addrinfo& address) {
  const int fd = ::socket(address.ai_family, address.ai_socktype | SOCK_CLOEXEC, address.ai_protocol);
  if (fd < 0) return errno;
  const int on = 1;
  const bool listening = ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
                         ::bind(fd, address.ai_addr, address.ai_addrlen) == 0 && ::listen(fd, 1) == 0;
  const int error = listening ? 0 : errno;
  ::close(fd);
  return error;
}

std::string explain(int error, const std::string& key) {
  switch (error) {
    case 0:
      return "the address cannot be listened on";
    case EADDRINUSE:
      return absl::StrCat("already in use; stop what listens there or set ", key,
                          " to another port (0 takes a free one)");
    case EADDRNOTAVAIL:
      return absl::StrCat("is no address of this machine; set ", key, " to one, or to 0.0.0.0:PORT for all of them");
    case EACCES:
      return absl::StrCat("this user may not listen there; set ", key, " to a port above 1023");
    default:
      return std::strerror(error);
  }
}

}  // namespace

std::string why_not_listening(const std::string& listen, const std::string& key) {
  const size_t colon = listen.rfind(':');
  if (colon == std::string::npos) return absl::StrCat("is no HOST:PORT; set ", key, " to one");
  std::string host = listen.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  const addrinfo hints{.ai_flags = AI_PASSIVE, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
  addrinfo* found = nullptr;
  const int failure =
      ::getaddrinfo(host.empty() ? nullptr : host.c_str(), listen.substr(colon + 1).c_str(), &hints, &found);
  if (failure != 0) return ::gai_strerror(failure);
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(found, ::freeaddrinfo);
  for (const addrinfo* address = found; address != nullptr; address = address->ai_next) {
    if (const int error = try_to_listen(*address); error != 0) return explain(error, key);
  }
  return explain(0, key);
}

}  // namespace pkv
