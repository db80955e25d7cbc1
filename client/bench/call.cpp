// The callback API: each message is timed where it arrives.
#include "client/bench/call.h"

#include <array>
#include <utility>

#include "client/client.h"

namespace pkv::client {
namespace {

double seconds_between(BenchClock::time_point from, BenchClock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

std::string code_name(grpc::StatusCode code) {
  constexpr std::array<const char*, 17> kNames{
      "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
      "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
      "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
      "DATA_LOSS", "UNAUTHENTICATED"};
  const int number = static_cast<int>(code);
  return number >= 0 && number < static_cast<int>(kNames.size()) ? kNames[static_cast<size_t>(number)] : "UNKNOWN";
}

BenchCall::BenchCall(v1::GenerateRequest request, size_t policy, bool measured, BenchClock::time_point due, Done done)
    : request_(std::move(request)), done_(std::move(done)) {
  outcome_.policy = policy;
  outcome_.measured = measured;
  outcome_.due = due;
}

void BenchCall::start(v1::GenerationService::Stub& stub, std::optional<double> timeout_seconds) {
  if (timeout_seconds) {
    context_.set_deadline(std::chrono::system_clock::now() +
                          std::chrono::duration_cast<std::chrono::system_clock::duration>(
                              std::chrono::duration<double>(*timeout_seconds)));
  }
  outcome_.lag = seconds_between(outcome_.due, BenchClock::now());
  stub.async()->GenerateStream(&context_, &request_, this);
  StartRead(&event_);
  StartCall();
}

void BenchCall::take_tokens(int count) {
  if (count == 0) return;
  const auto now = BenchClock::now();
  if (last_token_) {
    outcome_.gaps.push_back(static_cast<float>(seconds_between(*last_token_, now)));
  } else {
    outcome_.first_token = seconds_between(outcome_.due, now);
  }
  outcome_.gaps.insert(outcome_.gaps.end(), static_cast<size_t>(count - 1), 0.0f);
  last_token_ = now;
}

void BenchCall::OnReadDone(bool ok) {
  if (!ok) return;  // OnDone follows
  if (event_.has_start()) outcome_.admitted = true;
  if (event_.has_delta()) take_tokens(event_.delta().token_ids_size());
  if (event_.has_end()) {
    outcome_.end.Swap(event_.mutable_end());
    outcome_.completed = true;
  }
  StartRead(&event_);
}

void BenchCall::OnDone(const grpc::Status& status) {
  outcome_.ended = BenchClock::now();
  outcome_.total = seconds_between(outcome_.due, outcome_.ended);
  if (!status.ok()) {
    outcome_.completed = false;
    outcome_.code = code_name(status.error_code());
    outcome_.reason = Client::error_of(status).reason;
  } else if (!outcome_.completed) {
    outcome_.code = "INCOMPLETE";  // the stream closed without its end message
  }
  const Done done = std::move(done_);
  done(*this, std::move(outcome_));
}

}  // namespace pkv::client
