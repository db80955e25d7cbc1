#include "server/rpc/call_info.h"

#include <chrono>
#include <iterator>

#include "absl/time/clock.h"

namespace pkv {
namespace {

std::optional<TraceContext> trace_of(const grpc::CallbackServerContext& context) {
  const auto [first, last] = context.client_metadata().equal_range("traceparent");
  // Of two, neither can be trusted.
  if (first == last || std::next(first) != last) return std::nullopt;
  return parse_traceparent({first->second.data(), first->second.size()});
}

Credentials credentials_of(const grpc::CallbackServerContext& context) {
  const auto [first, last] = context.client_metadata().equal_range("authorization");
  if (first == last) return {};
  if (std::next(first) != last) return {.kind = Credentials::Kind::kUnreadable};
  return read_authorization({first->second.data(), first->second.size()});
}

std::optional<absl::Time> deadline_of(const grpc::CallbackServerContext& context) {
  const std::chrono::system_clock::time_point deadline = context.deadline();
  // gRPC stands for "none" with the largest time of its own clock, which is short of time_point::max by rounding.
  if (deadline >= std::chrono::system_clock::time_point::max() - std::chrono::hours(1)) return std::nullopt;
  return absl::FromChrono(deadline);
}

}  // namespace

CallInfo describe_call(const grpc::CallbackServerContext& context, std::string_view method) {
  return {.method = method,
          .peer = context.peer(),
          .arrived = absl::Now(),
          .deadline = deadline_of(context),
          .trace = trace_of(context),
          .credentials = credentials_of(context)};
}

}  // namespace pkv
