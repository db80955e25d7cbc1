// JSON objects that are no message of the contract.
#pragma once

#include <google/protobuf/struct.pb.h>

#include <string>

namespace pkv::client {

// Returns an empty string, or why `text` is no JSON object.
std::string read_json_object(const std::string& text, google::protobuf::Struct& object);

}  // namespace pkv::client
