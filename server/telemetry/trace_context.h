// The trace that a caller's request belongs to, as W3C Trace Context carries it (header or gRPC metadata
// `traceparent`). It is logged and goes no further.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace pkv {

struct TraceContext {
  std::string trace_id;  // 32 lower-case hexadecimal digits
  std::string span_id;   // 16 of them: the caller's span
};

// Nothing where `traceparent` breaks any rule of the standard.
std::optional<TraceContext> parse_traceparent(std::string_view traceparent);

}  // namespace pkv
