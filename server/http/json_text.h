// JSON of strangers: parsed within bounds, and the way to and from messages of the contract.
#pragma once

#include <google/protobuf/message.h>

#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace pkv {

using Json = nlohmann::json;

// BAD_INPUT, naming the place, where `text` is no JSON, has numbers that no double holds, is nested deeper than 64 or
// has more than a million values.
absl::StatusOr<Json> parse_json(const std::string& text);
// As one line of JSON. What is no UTF-8 becomes U+FFFD.
std::string json_text(const Json& value);
// `object`, the text of one with at least one member, with a further one whose value is the JSON `value`.
std::string with_member(std::string object, const std::string& name, const std::string& value);

// proto3 JSON with the names of the proto files. BAD_INPUT naming `field` where `value` is no such message.
absl::Status read_message(const Json& value, const std::string& field, google::protobuf::Message& out);
std::string message_json(const google::protobuf::Message& message);

}  // namespace pkv
