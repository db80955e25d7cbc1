// Log lines with named fields, as text for people or JSON for machines, on standard error. Safe from any thread; never
// called from the engine thread, since writing may block.
#pragma once

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace spdlog {
class logger;
}

namespace pkv {

enum class LogLevel : uint8_t { kTrace, kDebug, kInfo, kWarn, kError };

using LogField = std::pair<std::string_view, std::string>;

class Log {
 public:
  // `level`: trace, debug, info, warn, error; `format`: text, json. Anything else is a bug (the configuration checks
  // them).
  Log(std::string_view level, std::string_view format);

  void write(LogLevel level, std::string_view message, std::initializer_list<LogField> fields = {}) const;
  void debug(std::string_view message, std::initializer_list<LogField> fields = {}) const {
    write(LogLevel::kDebug, message, fields);
  }
  void info(std::string_view message, std::initializer_list<LogField> fields = {}) const {
    write(LogLevel::kInfo, message, fields);
  }
  void warn(std::string_view message, std::initializer_list<LogField> fields = {}) const {
    write(LogLevel::kWarn, message, fields);
  }
  void error(std::string_view message, std::initializer_list<LogField> fields = {}) const {
    write(LogLevel::kError, message, fields);
  }

 private:
  std::shared_ptr<spdlog::logger> logger_;
  bool json_;
};

// `text` as the inside of a JSON string; control characters and quotes escaped.
std::string json_escape(std::string_view text);

}  // namespace pkv
