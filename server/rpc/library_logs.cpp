#include "server/rpc/library_logs.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>

#include <array>
#include <atomic>
#include <string>
#include <string_view>

namespace pkv {
namespace {

std::atomic<const Log*> library_log = nullptr;

void write(LogLevel level, std::string_view library, std::string_view message, const char* file, int line) {
  const std::array<LogField, 2> fields = {
      {{"library", library}, {"source", std::string(file) + ":" + std::to_string(line)}}};
  library_log.load()->write(level, message, fields);
}

void on_grpc(gpr_log_func_args* args) {
  const LogLevel level = args->severity == GPR_LOG_SEVERITY_ERROR  ? LogLevel::kError
                         : args->severity == GPR_LOG_SEVERITY_INFO ? LogLevel::kInfo
                                                                   : LogLevel::kDebug;
  write(level, "grpc", args->message, args->file, args->line);
}

void on_protobuf(google::protobuf::LogLevel level, const char* file, int line, const std::string& message) {
  // Its errors are about messages of callers, who are told so themselves; none is the server's failure.
  const LogLevel ours = level == google::protobuf::LOGLEVEL_FATAL  ? LogLevel::kError
                        : level == google::protobuf::LOGLEVEL_INFO ? LogLevel::kInfo
                                                                   : LogLevel::kWarn;
  write(ours, "protobuf", message, file, line);
}

}  // namespace

void route_library_logs(const Log& log) {
  library_log = new Log(log);
  gpr_set_log_function(on_grpc);
  google::protobuf::SetLogHandler(on_protobuf);
}

}  // namespace pkv
