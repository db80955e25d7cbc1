// Single fields of OpenAI's requests: read into a message of the contract, passed over, or refused.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "server/http/json_text.h"
#include "server/http/openai_request.h"

namespace pkv {

// How one field is read. `value` is not null: null is the same as no such field.
struct OpenAiField {
  std::string_view name;
  absl::Status (*read)(const Json& value, const std::string& name, OpenAiRequest& request);
};

// Of both endpoints; those of one of them are in openai_request.cpp.
std::span<const OpenAiField> common_fields();
// Nothing of the answer depends on them.
bool is_passed_over(std::string_view name);
// OK where the value means that nothing is asked for. Otherwise what the field asks for is not to be had, and is
// refused with a way out where there is one. A name of which nothing is known: unknown_field().
absl::Status refuse_field(const std::string& name, const Json& value);
// UNIMPLEMENTED about `parent`, empty for the body itself: the name is the caller's own, and so part of what is
// answered alone, which goes to nobody else.
absl::Status unknown_field(const std::string& parent, const std::string& name);

// Typed values. BAD_INPUT naming the field for another type or range.
absl::Status read_value(const Json& value, const std::string& name, bool& out);
absl::Status read_value(const Json& value, const std::string& name, std::string& out);
absl::Status read_value(const Json& value, const std::string& name, float& out);
absl::Status read_value(const Json& value, const std::string& name, uint32_t& out);
absl::Status read_value(const Json& value, const std::string& name, int32_t& out);

}  // namespace pkv
