// Brackets, commas and indentation.
#include "client/json_writer.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/inspect_page.h"

namespace pkv::client {

void JsonWriter::start(const std::string& key) {
  if (!first_) text_ += ',';
  if (depth_ > 0) absl::StrAppend(&text_, "\n", std::string(2 * static_cast<size_t>(depth_), ' '));
  if (!key.empty()) absl::StrAppend(&text_, json_string(key), ": ");
  first_ = false;
}

void JsonWriter::open(const std::string& key, char bracket) {
  start(key);
  text_ += bracket;
  ++depth_;
  first_ = true;
}

void JsonWriter::close(char bracket) {
  --depth_;
  if (!first_) absl::StrAppend(&text_, "\n", std::string(2 * static_cast<size_t>(depth_), ' '));
  text_ += bracket;
  first_ = false;
}

void JsonWriter::raw(const std::string& key, const std::string& value) {
  start(key);
  text_ += value;
}

void JsonWriter::add(const std::string& key, const std::string& value) { raw(key, json_string(value)); }

void JsonWriter::add(const std::string& key, double value) {
  raw(key, std::isfinite(value) ? absl::StrFormat("%.10g", value) : "null");
}

}  // namespace pkv::client
