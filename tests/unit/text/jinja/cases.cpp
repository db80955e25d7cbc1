#include "tests/unit/text/jinja/cases.h"

#include <cstdlib>
#include <fstream>

#include "kernels/check.h"

namespace pkv::jinja::test {

const Json& cases() {
  static const Json* const all = [] {
    const char* path = std::getenv("PKV_JINJA_CASES");
    PKV_CHECK(path != nullptr, "PKV_JINJA_CASES is not set; ctest sets it");
    return new Json(Json::parse(std::ifstream(path)));
  }();
  return *all;
}

Value to_value(const Json& json, Source source) {
  if (json.is_null()) return Value::none();
  if (json.is_boolean()) return Value::of(json.get<bool>());
  if (json.is_number_integer()) return Value::of(json.get<int64_t>());
  if (json.is_number_float()) return Value::of(json.get<double>());
  if (json.is_string()) return Value::string(Text(json.get<std::string>(), source));
  if (json.is_array()) {
    std::vector<Value> items;
    for (const Json& item : json) items.push_back(to_value(item, source));
    return Value::list(std::move(items));
  }
  std::vector<std::pair<std::string, Value>> items;
  for (const auto& [key, item] : json.items()) items.emplace_back(key, to_value(item, source));
  return Value::dict(std::move(items), source);
}

Variables plain_variables(const Json& variables) {
  Variables out;
  for (const auto& [name, value] : variables.items()) out.emplace_back(name, to_value(value));
  return out;
}

Variables chat_variables(const Json& variables) {
  Variables out;
  for (const auto& [name, value] : variables.items()) {
    if (name != "messages") {
      out.emplace_back(name, to_value(value));
      continue;
    }
    std::vector<Value> messages;
    for (size_t i = 0; i < value.size(); ++i) messages.push_back(to_value(value[i], static_cast<Source>(i)));
    out.emplace_back(name, Value::list(std::move(messages)));
  }
  out.emplace_back("bos_token", Value::string(Text("<s>")));
  out.emplace_back("eos_token", Value::string(Text("</s>")));
  return out;
}

std::tm some_time() {
  std::tm time{};
  time.tm_year = 126;
  time.tm_mon = 1;
  time.tm_mday = 3;
  time.tm_hour = 4;
  time.tm_min = 5;
  time.tm_sec = 6;
  time.tm_wday = 2;
  return time;
}

}  // namespace pkv::jinja::test
