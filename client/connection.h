// Why no connection to a server can be made, found out with a socket of our own: gRPC only says that it cannot.
#pragma once

#include <string>

namespace pkv::client {

// What is wrong with HOST:PORT as it is written, with the way out; "" where nothing is. Names that gRPC resolves
// itself (unix:..., dns:...) are left to it.
std::string target_problem(const std::string& target);

struct ConnectionProblem {
  std::string text;       // with the way out in a second line, where there is one
  bool answered = false;  // something listens there: to start a server is no way out
};

// What happens to one who connects to `target`: the name does not resolve, nothing listens, nothing answers, something
// else than a gRPC server answers. With `tls` nothing is said to what listens: only gRPC can tell what is wrong there.
// Takes a few seconds at most.
ConnectionProblem connection_problem(const std::string& target, bool tls);

// What an answer to the beginning of an HTTP/2 connection shows of who gave it; "" for HTTP/2.
std::string foreign_speech(const std::string& answer);

}  // namespace pkv::client
