// Words of the command line for the fields and enums of any proto message.
#pragma once

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <optional>
#include <string>
#include <vector>

namespace pkv::client {

// "max" for POOLING_MAX: the prefix is that of the value with number 0, POOLING_UNSPECIFIED.
std::string enum_word(const google::protobuf::EnumDescriptor& type, int number);
// Words of all values but the unspecified one.
std::vector<std::string> enum_words(const google::protobuf::EnumDescriptor& type);
std::optional<int> enum_number(const google::protobuf::EnumDescriptor& type, const std::string& word);

// Sets a uint32, uint64, double or enum field; false where the word is no value of its type.
bool set_field(google::protobuf::Message& message, const google::protobuf::FieldDescriptor& field,
               const std::string& word);
// The field's value as a word that set_field takes.
std::string field_text(const google::protobuf::Message& message, const google::protobuf::FieldDescriptor& field);
// What a value of the field looks like, for complaints.
std::string expected_value(const google::protobuf::FieldDescriptor& field);

}  // namespace pkv::client
