// Log lines with named fields, as text for people or JSON for machines, on standard error. Safe from any thread; never
// called from the engine thread, since writing may block.
#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace spdlog {
class logger;
}

namespace pkv {

enum class LogLevel : uint8_t { kTrace, kDebug, kInfo, kWarn, kError };

// Text, a number or a truth value; in JSON each is of its own type.
class LogValue {
 public:
  LogValue(std::string text) : value_(std::move(text)) {}                     // NOLINT(google-explicit-constructor)
  LogValue(std::string_view text) : value_(std::string(text)) {}              // NOLINT(google-explicit-constructor)
  LogValue(const char* text) : value_(std::string(text)) {}                   // NOLINT(google-explicit-constructor)
  LogValue(bool value) : value_(value) {}                                     // NOLINT(google-explicit-constructor)
  LogValue(std::signed_integral auto number) : value_(int64_t{number}) {}     // NOLINT(google-explicit-constructor)
  LogValue(std::unsigned_integral auto number) : value_(uint64_t{number}) {}  // NOLINT(google-explicit-constructor)
  LogValue(std::floating_point auto number) : value_(double{number}) {}       // NOLINT(google-explicit-constructor)

  std::string as_text() const;  // quoted where it could not be told from the rest of a line otherwise
  std::string as_json() const;

 private:
  std::variant<std::string, bool, int64_t, uint64_t, double> value_;
};

struct LogField {
  std::string_view name;
  LogValue value;
};

class Log {
 public:
  // `level`: trace, debug, info, warn, error; `format`: text, json. Anything else is a bug (the configuration checks
  // them).
  Log(std::string_view level, std::string_view format);

  // From now on, for every thread.
  void set_level(std::string_view level) const;

  // Whether such messages are written.
  bool writes(LogLevel level) const;

  // Whatever `message` and `fields` hold, this is one line.
  void write(LogLevel level, std::string_view message, std::span<const LogField> fields) const;
  void debug(std::string_view message, std::initializer_list<LogField> fields = {}) const {
    write(LogLevel::kDebug, message, {fields.begin(), fields.size()});
  }
  void info(std::string_view message, std::initializer_list<LogField> fields = {}) const {
    write(LogLevel::kInfo, message, {fields.begin(), fields.size()});
  }
  void warn(std::string_view message, std::initializer_list<LogField> fields = {}) const {
    write(LogLevel::kWarn, message, {fields.begin(), fields.size()});
  }
  void error(std::string_view message, std::initializer_list<LogField> fields = {}) const {
    write(LogLevel::kError, message, {fields.begin(), fields.size()});
  }

 private:
  std::shared_ptr<spdlog::logger> logger_;
  bool json_;
};

// What Log writes behind time and level.
std::string text_line(std::string_view message, std::span<const LogField> fields);
std::string json_line(std::string_view message, std::span<const LogField> fields);  // the members of an object

}  // namespace pkv
