#include "server/http/json_text.h"

#include <google/protobuf/util/json_util.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "server/api/errors.h"

namespace pkv {
namespace {

constexpr int kMaxDepth = 64;
constexpr size_t kMaxValues = 1 << 20;  // of up to some 90 bytes each

// A value costs much more memory than its text, and a nested one some stack, so both are counted before anything is
// parsed.
absl::Status check_bounds(const std::string& text) {
  int depth = 0;
  size_t values = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      if (c == '"') quoted = false;
      continue;
    }
    if (c == '"') quoted = true;
    if (c == '[' || c == '{') ++depth;
    if (c == ']' || c == '}') --depth;
    if (c == ',' || c == '[' || c == '{') ++values;
    if (depth > kMaxDepth) return bad_input("", absl::StrCat("the body is nested deeper than ", kMaxDepth));
    if (values > kMaxValues) return bad_input("", absl::StrCat("the body has more than ", kMaxValues, " values"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Json> parse_json(const std::string& text) {
  PKV_RETURN_IF_ERROR(check_bounds(text));
  try {
    return Json::parse(text);
  } catch (const Json::parse_error& error) {
    return bad_input("", absl::StrCat("the body is no JSON: byte ", error.byte, " is not as it should be"));
  } catch (const Json::out_of_range&) {
    return bad_input("", "the body has a number beyond what a double holds");
  }
}

std::string json_text(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::string with_member(std::string object, const std::string& name, const std::string& value) {
  object.pop_back();
  absl::StrAppend(&object, ",\"", name, "\":", value, "}");
  return object;
}

absl::Status read_message(const Json& value, const std::string& field, google::protobuf::Message& out) {
  if (!value.is_object()) return bad_input(field, "must be an object");
  const auto status = google::protobuf::util::JsonStringToMessage(json_text(value), &out);
  if (status.ok()) return absl::OkStatus();
  return bad_input(field, absl::StrCat("is no ", std::string(out.GetDescriptor()->name()),
                                       " in proto3 JSON: ", std::string(status.message())));
}

std::string message_json(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  std::string text;
  (void)google::protobuf::util::MessageToJsonString(message, &text, options);
  return text;
}

}  // namespace pkv
