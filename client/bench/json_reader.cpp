// protobuf's own parser, for its type of free JSON.
#include "client/bench/json_reader.h"

#include <google/protobuf/util/json_util.h>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

namespace pkv::client {

std::string read_json_object(const std::string& text, google::protobuf::Struct& object) {
  // The parser takes an empty text for an empty object.
  if (!absl::StartsWith(absl::StripAsciiWhitespace(text), "{")) return "it does not begin with '{'";
  object.Clear();
  const auto status = google::protobuf::util::JsonStringToMessage(text, &object);
  if (status.ok()) return "";
  const std::string message(status.message());
  return message.substr(0, message.find('\n'));  // what follows repeats the text
}

}  // namespace pkv::client
