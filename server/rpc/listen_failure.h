// Why an address cannot be listened on. gRPC does not say.
#pragma once

#include <string>

namespace pkv {

// The reason and what to do about it, as the end of a sentence about `listen` ("HOST:PORT"), found by trying once more;
// `key` is the configuration's.
std::string why_not_listening(const std::string& listen, const std::string& key);

}  // namespace pkv
