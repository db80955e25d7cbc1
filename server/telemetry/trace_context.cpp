#include "server/telemetry/trace_context.h"

#include <algorithm>

namespace pkv {
namespace {

// version-traceid-parentid-flags: 2, 32, 16 and 2 digits.
constexpr size_t kTraceIdBegin = 3, kTraceIdDigits = 32;
constexpr size_t kSpanIdBegin = 36, kSpanIdDigits = 16;
constexpr size_t kFlagsBegin = 53;
constexpr size_t kLength = 55;
constexpr size_t kMaxLength = 512;  // of later versions, which may add fields

bool is_hex(std::string_view digits) {
  return std::ranges::all_of(digits, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool is_id(std::string_view digits) {
  return is_hex(digits) && digits.find_first_not_of('0') != std::string_view::npos;
}

}  // namespace

std::optional<TraceContext> parse_traceparent(std::string_view traceparent) {
  if (traceparent.size() < kLength || traceparent.size() > kMaxLength) return std::nullopt;
  const std::string_view version = traceparent.substr(0, 2);
  if (!is_hex(version) || version == "ff") return std::nullopt;
  const bool longer = traceparent.size() > kLength;
  if (longer && (version == "00" || traceparent[kLength] != '-')) return std::nullopt;
  for (const size_t dash : {kTraceIdBegin - 1, kSpanIdBegin - 1, kFlagsBegin - 1}) {
    if (traceparent[dash] != '-') return std::nullopt;
  }
  const std::string_view trace_id = traceparent.substr(kTraceIdBegin, kTraceIdDigits);
  const std::string_view span_id = traceparent.substr(kSpanIdBegin, kSpanIdDigits);
  if (!is_id(trace_id) || !is_id(span_id) || !is_hex(traceparent.substr(kFlagsBegin, 2))) return std::nullopt;
  return TraceContext{.trace_id = std::string(trace_id), .span_id = std::string(span_id)};
}

}  // namespace pkv
