#include "server/telemetry/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <array>

#include "kernels/check.h"

namespace pkv {
namespace {

struct Level {
  std::string_view name;
  spdlog::level::level_enum value;
};
// In the order of LogLevel.
constexpr std::array<Level, 5> kLevels = {{{"trace", spdlog::level::trace},
                                           {"debug", spdlog::level::debug},
                                           {"info", spdlog::level::info},
                                           {"warn", spdlog::level::warn},
                                           {"error", spdlog::level::err}}};

spdlog::level::level_enum level_of(std::string_view name) {
  for (const Level& level : kLevels) {
    if (level.name == name) return level.value;
  }
  PKV_CHECK(false, "unknown log level");
}

// A value with blanks or quotes is quoted, so that a text line can be taken apart again.
std::string text_value(const std::string& value) {
  const bool plain = !value.empty() && value.find_first_of(" \t\r\n\"=") == std::string::npos;
  return plain ? value : "\"" + json_escape(value) + "\"";
}

std::string text_line(std::string_view message, std::initializer_list<LogField> fields) {
  std::string line(message);
  for (const auto& [name, value] : fields) {
    line.append(" ").append(name).append("=").append(text_value(value));
  }
  return line;
}

std::string json_line(std::string_view message, std::initializer_list<LogField> fields) {
  std::string line = "\"message\":\"" + json_escape(message) + "\"";
  for (const auto& [name, value] : fields) {
    line.append(",\"").append(json_escape(name)).append("\":\"").append(json_escape(value)).append("\"");
  }
  return line;
}

}  // namespace

Log::Log(std::string_view level, std::string_view format)
    : logger_(std::make_shared<spdlog::logger>("pyramidkv", std::make_shared<spdlog::sinks::stderr_sink_mt>())),
      json_(format == "json") {
  logger_->set_level(level_of(level));
  logger_->flush_on(spdlog::level::trace);
  logger_->set_pattern(json_ ? R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l",%v})" : "%Y-%m-%dT%H:%M:%S.%e%z %l %v");
}

void Log::write(LogLevel level, std::string_view message, std::initializer_list<LogField> fields) const {
  const spdlog::level::level_enum value = kLevels[static_cast<size_t>(level)].value;
  if (!logger_->should_log(value)) return;
  logger_->log(value, json_ ? json_line(message, fields) : text_line(message, fields));
}

std::string json_escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out.append({'\\', c});
    } else if (byte < 0x20) {
      constexpr std::string_view kHex = "0123456789abcdef";
      out.append("\\u00").append({kHex[byte >> 4], kHex[byte & 15]});
    } else {
      out.push_back(c);
    }
  }
  return out;
}

}  // namespace pkv
