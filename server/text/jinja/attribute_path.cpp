#include "server/text/jinja/attribute_path.h"

#include "kernels/status_macros.h"
#include "server/text/jinja/operations.h"
#include "server/text/jinja/string_functions.h"
#include "server/text/jinja/value_text.h"

namespace pkv::jinja {

absl::StatusOr<Value> follow_path(const Value& item, const Value* path, const Value* otherwise, Budget& budget) {
  if (path == nullptr || path->is_none()) return item;
  Value at = item;
  const auto step = [&](const Value& key) -> absl::Status {
    PKV_ASSIGN_OR_RETURN(at, get_item(at, key, budget));
    if (otherwise != nullptr && at.is_undefined()) at = *otherwise;
    return absl::OkStatus();
  };
  const String* string = path->string();
  if (string == nullptr) {
    PKV_RETURN_IF_ERROR(step(*path));
    return at;
  }
  for (Text& part : split(string->text, Text("."), -1, budget)) {
    const bool digits = !part.empty() && part.bytes().find_first_not_of("0123456789") == std::string::npos;
    const auto index = digits ? parse_integer(part.bytes(), 10) : std::nullopt;
    PKV_RETURN_IF_ERROR(step(index.has_value() ? Value::of(*index) : make_string(std::move(part), budget)));
  }
  return at;
}

}  // namespace pkv::jinja
