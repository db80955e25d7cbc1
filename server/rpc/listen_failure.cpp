#include "server/rpc/listen_failure.h"

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace pkv {

std::string why_not_listening(int error_number, const std::string& key) {
  switch (error_number) {
    case EADDRINUSE:
      return absl::StrCat("already in use; stop what listens there or set ", key,
                          " to another port (0 takes a free one)");
    case EADDRNOTAVAIL:
      return absl::StrCat("is no address of this machine; set ", key, " to one, or to 0.0.0.0:PORT for all of them");
    case EACCES:
      return absl::StrCat("this user may not listen there; set ", key, " to a port above 1023");
    default:
      return std::strerror(error_number);
  }
}

}  // namespace pkv
