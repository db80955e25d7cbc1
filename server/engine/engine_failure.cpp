// The end of the engine by a failure of its backend or an exception: nobody is left without an answer, nothing more is
// computed.
#include "absl/strings/str_cat.h"
#include "server/engine/engine_impl.h"

namespace pkv {
namespace {

// Memory may be what is missing, so anything may throw again; the rest is to be done all the same.
template <typename Work>
bool attempt(const Work& work) {
  try {
    work();
    return true;
  } catch (...) {  // the failure that counts is known already
    return false;
  }
}

}  // namespace

void EngineImpl::fail(absl::string_view cause) {
  absl::Status failure(absl::StatusCode::kInternal, ""), refusal(absl::StatusCode::kUnavailable, "");  // take no memory
  attempt([&] {
    failure = absl::InternalError(absl::StrCat("the engine failed: ", cause));
    refusal = absl::UnavailableError("the engine has failed");
  });
  {
    std::lock_guard lock(mutex_);
    failure_ = failure;
    state_ = State::kFailed;
    waiting_ = 0;
  }
  // From here on nothing is added to live_, and others only look into it: it may be read without the mutex. It holds
  // everyone who was not told, wherever the failure left them. Nobody is counted: the accounts may be half made.
  for (const auto& entry : live_) {
    Sequence* const sequence = entry.second.get();
    if (sequence->failure().ok()) sequence->fail(sequence->phase() == Sequence::Phase::kWaiting ? refusal : failure);
    attempt([&] { sequence->release(); });
  }
  sequences_.clear();
  scheduler_ = Scheduler(limits());
  attempt([&] { latest_.set(make_snapshot(options_.clock())); });
  for (Ending& ending : endings_) {  // what had ended before and was not told yet
    if (!ending.sequence->told()) attempt([&] { ending.sequence->tell_end(ending.outcome); });
  }
  for (const auto& entry : live_) {
    Sequence* const sequence = entry.second.get();
    std::variant<absl::Status, RequestResult> outcome = sequence->failure();
    while (!sequence->told() && attempt([&] { sequence->tell_end(outcome); })) {
      if (!sequence->told()) std::this_thread::sleep_for(kMemoryPause);
    }
  }
  endings_.clear();
  decltype(live_) told;  // outlives the lock: what a sink does when it is destroyed is its own
  std::lock_guard lock(mutex_);
  told.swap(live_);
  incoming_.clear();
  heartbeat_ = 0;
  idle_.notify_all();
}

}  // namespace pkv
