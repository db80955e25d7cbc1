#include "server/telemetry/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <array>
#include <charconv>
#include <cmath>

#include "kernels/check.h"
#include "server/telemetry/escape.h"

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

std::string quoted(const std::string& escaped) { return '"' + escaped + '"'; }

// Six digits are more than anything that is measured here has.
std::string number_text(double number) {
  std::array<char, 32> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number, std::chars_format::general, 6);
  return std::string(digits.data(), end.ptr);
}

std::string text_of(const std::string& text) {
  const std::string escaped = json_escape(text);
  const bool plain = !text.empty() && escaped == text && text.find_first_of(" =") == std::string::npos;
  return plain ? text : quoted(escaped);
}

}  // namespace

Log::Log(std::string_view level, std::string_view format)
    : logger_(std::make_shared<spdlog::logger>("pyramidkv", std::make_shared<spdlog::sinks::stderr_sink_mt>())),
      json_(format == "json") {
  logger_->set_level(level_of(level));
  logger_->flush_on(spdlog::level::trace);
  logger_->set_pattern(json_ ? R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l",%v})" : "%Y-%m-%dT%H:%M:%S.%e%z %l %v");
}

void Log::set_level(std::string_view level) const { logger_->set_level(level_of(level)); }

bool Log::writes(LogLevel level) const { return logger_->should_log(kLevels[static_cast<size_t>(level)].value); }

std::string LogValue::as_text() const {
  if (const auto* text = std::get_if<std::string>(&value_)) return text_of(*text);
  if (const auto* number = std::get_if<double>(&value_)) return number_text(*number);
  return as_json();
}

std::string LogValue::as_json() const {
  if (const auto* text = std::get_if<std::string>(&value_)) return quoted(json_escape(*text));
  if (const auto* truth = std::get_if<bool>(&value_)) return *truth ? "true" : "false";
  if (const auto* number = std::get_if<int64_t>(&value_)) return std::to_string(*number);
  if (const auto* number = std::get_if<uint64_t>(&value_)) return std::to_string(*number);
  const double number = std::get<double>(value_);
  return std::isfinite(number) ? number_text(number) : "null";  // JSON has no other word for it
}

std::string text_line(std::string_view message, std::span<const LogField> fields) {
  std::string line = escape_controls(message);
  for (const auto& [name, value] : fields) line.append(" ").append(name).append("=").append(value.as_text());
  return line;
}

std::string json_line(std::string_view message, std::span<const LogField> fields) {
  std::string line = "\"message\":" + quoted(json_escape(message));
  for (const auto& [name, value] : fields) {
    line.append(",").append(quoted(json_escape(name))).append(":").append(value.as_json());
  }
  return line;
}

void Log::write(LogLevel level, std::string_view message, std::span<const LogField> fields) const {
  const spdlog::level::level_enum value = kLevels[static_cast<size_t>(level)].value;
  if (!logger_->should_log(value)) return;
  logger_->log(value, json_ ? json_line(message, fields) : text_line(message, fields));
}

}  // namespace pkv
