// Why an address cannot be listened on.
#pragma once

#include <string>

namespace pkv {

// The reason and what to do about it, as the end of a sentence about the address; `key` is the configuration's.
std::string why_not_listening(int error_number, const std::string& key);

}  // namespace pkv
