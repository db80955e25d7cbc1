#include "server/rpc/wire.h"

#include <google/protobuf/descriptor.h>
#include <grpcpp/support/slice.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "server/api/errors.h"
#include "server/rpc/request_scan.h"
#include "server/telemetry/utf8.h"

namespace pkv {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

std::string find_bad_text(const Message& message, const std::string& prefix);

std::string find_bad_text_in(const Message& message, const FieldDescriptor& field, int index, const std::string& path) {
  const Reflection& reflection = *message.GetReflection();
  const bool repeated = index >= 0;
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    return find_bad_text(
        repeated ? reflection.GetRepeatedMessage(message, &field, index) : reflection.GetMessage(message, &field),
        path + ".");
  }
  if (field.type() != FieldDescriptor::TYPE_STRING) return {};
  const std::string text =
      repeated ? reflection.GetRepeatedString(message, &field, index) : reflection.GetString(message, &field);
  return find_invalid_utf8(text) ? path : std::string();
}

// Path of the first text below `message` that is not valid UTF-8; empty: none.
std::string find_bad_text(const Message& message, const std::string& prefix) {
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const std::string path = prefix + field->name();
    if (!field->is_repeated()) {
      if (std::string found = find_bad_text_in(message, *field, -1, path); !found.empty()) return found;
      continue;
    }
    if (field->is_map()) continue;  // no map of the contract's requests holds text
    for (int i = 0; i < message.GetReflection()->FieldSize(message, field); ++i) {
      if (std::string found = find_bad_text_in(message, *field, i, absl::StrCat(path, "[", i, "]")); !found.empty())
        return found;
    }
  }
  return {};
}

}  // namespace

absl::Status parse_message(const grpc::ByteBuffer& buffer, Message& message) {
  // gRPC hands over a call that ended early as one without a message.
  if (!buffer.Valid()) return absl::CancelledError("the call ended before its request had arrived");
  grpc::Slice slice;
  if (const grpc::Status status = buffer.DumpToSingleSlice(&slice); !status.ok()) {
    return make_error({.reason = kBadInput, .description = "the request could not be read"});
  }
  PKV_RETURN_IF_ERROR(scan_request({slice.begin(), slice.size()}, *message.GetDescriptor()));
  if (message.ParseFromArray(slice.begin(), static_cast<int>(slice.size()))) return absl::OkStatus();
  // What was parsed before the failure is still in the message, the offending text included.
  if (const std::string field = find_bad_text(message, ""); !field.empty())
    return bad_input(field, "is not valid UTF-8");
  return make_error(
      {.reason = kBadInput, .description = absl::StrCat("the request is no valid ", message.GetTypeName())});
}

grpc::ByteBuffer serialize_message(const Message& message) {
  const size_t size = message.ByteSizeLong();
  grpc::Slice slice(size);
  message.SerializeWithCachedSizesToArray(const_cast<uint8_t*>(slice.begin()));
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace pkv
