// Reads and writes scalar fields through their descriptors.
#include "client/proto_words.h"

#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace pkv::client {

using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

std::string enum_word(const EnumDescriptor& type, int number) {
  const std::string& zero = type.FindValueByNumber(0)->name();
  const auto* value = type.FindValueByNumber(number);
  if (!value) return absl::StrCat(number);
  return absl::AsciiStrToLower(value->name().substr(zero.size() - std::string("UNSPECIFIED").size()));
}

std::vector<std::string> enum_words(const EnumDescriptor& type) {
  std::vector<std::string> words;
  for (int i = 0; i < type.value_count(); ++i) {
    if (type.value(i)->number() != 0) words.push_back(enum_word(type, type.value(i)->number()));
  }
  return words;
}

std::optional<int> enum_number(const EnumDescriptor& type, const std::string& word) {
  for (int i = 0; i < type.value_count(); ++i) {
    const int number = type.value(i)->number();
    if (number != 0 && enum_word(type, number) == absl::AsciiStrToLower(word)) return number;
  }
  return std::nullopt;
}

std::string expected_value(const FieldDescriptor& field) {
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_ENUM) return absl::StrJoin(enum_words(*field.enum_type()), ", ");
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_BOOL) return "true, false";
  return field.cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE ? "a number" : "a whole number from 0";
}

bool set_field(Message& message, const FieldDescriptor& field, const std::string& word) {
  const auto& reflection = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_UINT32: {
      uint32_t value = 0;
      if (!absl::SimpleAtoi(word, &value)) return false;
      reflection.SetUInt32(&message, &field, value);
      return true;
    }
    case FieldDescriptor::CPPTYPE_UINT64: {
      uint64_t value = 0;
      if (!absl::SimpleAtoi(word, &value)) return false;
      reflection.SetUInt64(&message, &field, value);
      return true;
    }
    case FieldDescriptor::CPPTYPE_DOUBLE: {
      double value = 0;
      if (!absl::SimpleAtod(word, &value) || !std::isfinite(value)) return false;
      reflection.SetDouble(&message, &field, value);
      return true;
    }
    case FieldDescriptor::CPPTYPE_ENUM: {
      const auto number = enum_number(*field.enum_type(), word);
      if (number) reflection.SetEnumValue(&message, &field, *number);
      return number.has_value();
    }
    case FieldDescriptor::CPPTYPE_BOOL:
      if (word != "true" && word != "false") return false;
      reflection.SetBool(&message, &field, word == "true");
      return true;
    default:
      return false;
  }
}

std::string field_text(const Message& message, const FieldDescriptor& field) {
  const auto& reflection = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_UINT32:
      return absl::StrCat(reflection.GetUInt32(message, &field));
    case FieldDescriptor::CPPTYPE_UINT64:
      return absl::StrCat(reflection.GetUInt64(message, &field));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return absl::StrFormat("%.6g", reflection.GetDouble(message, &field));
    case FieldDescriptor::CPPTYPE_ENUM:
      return enum_word(*field.enum_type(), reflection.GetEnumValue(message, &field));
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection.GetBool(message, &field) ? "true" : "false";
    default:
      return field.name();
  }
}

}  // namespace pkv::client
