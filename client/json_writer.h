// Writes JSON members in the order they are given, with whole numbers exact.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

namespace pkv::client {

class JsonWriter {
 public:
  // `key` is empty in a list and for the outermost value.
  void open_object(const std::string& key = "") { open(key, '{'); }
  void close_object() { close('}'); }
  void open_list(const std::string& key = "") { open(key, '['); }
  void close_list() { close(']'); }

  void add(const std::string& key, const std::string& value);
  void add(const std::string& key, const char* value) { add(key, std::string(value)); }
  void add(const std::string& key, bool value) { raw(key, value ? "true" : "false"); }
  void add(const std::string& key, double value);  // null where it is no finite number
  template <typename T>
  requires(std::is_integral_v<T> && !std::is_same_v<T, bool>) void add(const std::string& key, T value) {
    raw(key, std::to_string(value));
  }
  void add_null(const std::string& key) { raw(key, "null"); }

  // The whole text, indented, with a line's end at the end.
  std::string text() const { return text_ + "\n"; }

 private:
  void open(const std::string& key, char bracket);
  void close(char bracket);
  void raw(const std::string& key, const std::string& value);
  void start(const std::string& key);

  std::string text_;
  int depth_ = 0;
  bool first_ = true;  // of the innermost object or list
};

}  // namespace pkv::client
