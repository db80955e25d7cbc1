// Messages to and from the wire by hand. gRPC answers a request it cannot parse (a string that is not valid UTF-8, say)
// with an error that names nothing; here the caller is told the field.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/support/byte_buffer.h>

#include "absl/status/status.h"

namespace pkv {

// BAD_INPUT where `buffer` is no such message, naming the field whose text is not valid UTF-8. CANCELLED where it is
// none at all.
absl::Status parse_message(const grpc::ByteBuffer& buffer, google::protobuf::Message& message);

grpc::ByteBuffer serialize_message(const google::protobuf::Message& message);

}  // namespace pkv
