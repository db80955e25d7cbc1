// One streamed generation under load, on gRPC's threads: no thread waits for it.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "pyramidkv/v1/generation.grpc.pb.h"

namespace pkv::client {

namespace v1 = ::pyramidkv::v1;
using BenchClock = std::chrono::steady_clock;

// How a call ended, and when. Times are seconds from when the call was due, so that a late start counts.
struct BenchOutcome {
  size_t policy = 0;
  bool measured = false;  // not of the warm-up
  BenchClock::time_point due, ended;
  double lag = 0;  // until it was sent
  double first_token = 0, total = 0;
  // From each token to the next. Of tokens that came in one message the first has the whole gap, the others none.
  std::vector<float> gaps;
  bool admitted = false;     // the stream began
  bool completed = false;    // OK, with its end message
  std::string code, reason;  // where not completed: gRPC's code, and the server's reason where it gave one
  v1::StreamEnd end;
};

class BenchCall final : public grpc::ClientReadReactor<v1::GenerateStreamResponse> {
 public:
  // Called once, on a thread of gRPC; the call may be destroyed by it.
  using Done = std::function<void(BenchCall&, BenchOutcome)>;

  BenchCall(v1::GenerateRequest request, size_t policy, bool measured, BenchClock::time_point due, Done done);

  void start(v1::GenerationService::Stub& stub, std::optional<double> timeout_seconds);
  // From any thread, after start().
  void cancel() { context_.TryCancel(); }

  void OnReadDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  void take_tokens(int count);

  grpc::ClientContext context_;
  const v1::GenerateRequest request_;
  v1::GenerateStreamResponse event_;
  Done done_;
  BenchOutcome outcome_;
  std::optional<BenchClock::time_point> last_token_;
};

// A gRPC status code as its specification writes it, e.g. RESOURCE_EXHAUSTED.
std::string code_name(grpc::StatusCode code);

}  // namespace pkv::client
