#include "server/rpc/request_scan.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "server/api/errors.h"

namespace pkv {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::internal::WireFormatLite;

// Whether protobuf takes a value of the field that is sent so. Otherwise it passes over it.
bool is_sent_as(const FieldDescriptor& field, WireFormatLite::WireType type) {
  const auto own = WireFormatLite::WireTypeForFieldType(static_cast<WireFormatLite::FieldType>(field.type()));
  return type == own || (field.is_packable() && type == WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
}

class RequestScan {
 public:
  explicit RequestScan(std::span<const uint8_t> bytes) : in_(bytes.data(), static_cast<int>(bytes.size())) {}

  // To the end of the message, or to what is no message.
  absl::Status message(const Descriptor& type) {
    while (const uint32_t tag = in_.ReadTag()) {
      const int number = WireFormatLite::GetTagFieldNumber(tag);
      const FieldDescriptor* field = type.FindFieldByNumber(number);
      if (field == nullptr) {
        return not_built(absl::StrCat(path(), number),
                         absl::StrCat("this server knows no such field of ", type.full_name()));
      }
      if (!is_sent_as(*field, WireFormatLite::GetTagWireType(tag))) {
        return bad_input(path() + field->name(), "is sent as another type than this field's");
      }
      if (WireFormatLite::GetTagWireType(tag) != WireFormatLite::WIRETYPE_LENGTH_DELIMITED) {
        if (!WireFormatLite::SkipField(&in_, tag)) return absl::OkStatus();
        continue;
      }
      int length = 0;
      if (!in_.ReadVarintSizeAsInt(&length)) return absl::OkStatus();
      PKV_RETURN_IF_ERROR(value(*field, length));
    }
    return absl::OkStatus();
  }

 private:
  absl::Status value(const FieldDescriptor& field, int length) {
    if (!field.is_packable() && ++values_ > kMaxValues) {
      return bad_input(path() + field.name(), absl::StrCat("the request has more than ", kMaxValues, " values"));
    }
    if (field.cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
      in_.Skip(length);
      return absl::OkStatus();
    }
    const auto outer = in_.PushLimit(length);
    path_.push_back(&field);
    PKV_RETURN_IF_ERROR(message(*field.message_type()));
    path_.pop_back();
    in_.Skip(in_.BytesUntilLimit());  // of what is no message
    in_.PopLimit(outer);
    return absl::OkStatus();
  }

  std::string path() const {
    std::string path;
    for (const FieldDescriptor* field : path_) absl::StrAppend(&path, field->name(), ".");
    return path;
  }

  google::protobuf::io::CodedInputStream in_;
  std::vector<const FieldDescriptor*> path_;
  size_t values_ = 0;
};

}  // namespace

absl::Status scan_request(std::span<const uint8_t> bytes, const Descriptor& type) {
  return RequestScan(bytes).message(type);
}

}  // namespace pkv
