// One thread keeps time and starts calls; gRPC's threads end them.
#include "client/bench/runner.h"

#include <algorithm>

namespace pkv::client {
namespace {

// How long a stop may go unseen, and how often progress is shown.
constexpr auto kLook = std::chrono::milliseconds(50);

// What a closed loop waits after a call that was not answered: refusals take no time, and a dead server even less.
constexpr auto kRest = std::chrono::milliseconds(10);

BenchClock::duration clock_duration(double seconds) {
  return std::chrono::duration_cast<BenchClock::duration>(std::chrono::duration<double>(seconds));
}

}  // namespace

BenchRunner::BenchRunner(const BenchPlan& plan, const std::vector<TraceLine>& trace, const BenchRequests& requests,
                         Stubs& stubs, BenchRecord& record, const std::atomic<bool>& stop,
                         std::function<void(const BenchState&)> show)
    : plan_(plan),
      trace_(trace),
      requests_(requests),
      stubs_(stubs),
      stop_(stop),
      show_(std::move(show)),
      record_(record) {}

void BenchRunner::run() {
  begin_ = BenchClock::now();
  measured_from_ = plan_.warmup.seconds;
  if (plan_.arrivals) {
    ArrivalSchedule schedule(*plan_.arrivals);
    planned_seconds_ = schedule.measured_seconds();
    open_loop([&] {
      const auto arrival = schedule.next();
      measured_from_ = schedule.measured_from();
      return arrival;
    });
  } else if (plan_.concurrency) {
    planned_seconds_ = plan_.duration.value_or(0);
    closed_loop();
  } else {
    planned_seconds_ = trace_.back().at / plan_.speed;
    open_loop([this] { return next_of_trace(); });
  }
  drain();
}

void BenchRunner::open_loop(const std::function<std::optional<Arrival>()>& next) {
  while (const auto arrival = next()) {
    const auto due = begin_ + clock_duration(arrival->at);
    if (!wait(due)) return;
    start(arrival->measured, due);
  }
}

std::optional<Arrival> BenchRunner::next_of_trace() {
  if (started_ == trace_.size() || (plan_.requests && measured_ == *plan_.requests)) return std::nullopt;
  const double at = trace_[started_].at / plan_.speed;
  const bool measured = plan_.warmup.requests > 0 ? started_ >= plan_.warmup.requests : at >= plan_.warmup.seconds;
  if (measured && measured_ == 0 && plan_.warmup.requests > 0) measured_from_ = at;
  if (measured && plan_.duration && at >= measured_from_ + *plan_.duration) return std::nullopt;
  return Arrival{.at = at, .measured = measured};
}

void BenchRunner::closed_loop() {
  while (wait(BenchClock::time_point::max(), [this] { return calls_.size() < *plan_.concurrency; }) &&
         wait(rest_until())) {
    const auto now = BenchClock::now();
    const double at = std::chrono::duration<double>(now - begin_).count();
    const bool measured = plan_.warmup.requests > 0 ? started_ >= plan_.warmup.requests : at >= plan_.warmup.seconds;
    if (measured && measured_ == 0 && plan_.warmup.requests > 0) measured_from_ = at;
    if (plan_.requests && measured_ == *plan_.requests) return;
    if (measured && plan_.duration && at >= measured_from_ + *plan_.duration) return;
    start(measured, now);
  }
}

void BenchRunner::start(bool measured, BenchClock::time_point due) {
  BenchRequests::Made made = requests_.make(started_);
  auto& stub = *stubs_[started_ % stubs_.size()];
  ++started_;
  measured_ += measured ? 1 : 0;
  std::shared_ptr<BenchCall> call;
  {
    const std::lock_guard lock(mutex_);
    if (calls_.size() >= plan_.max_in_flight) {
      record_.drop(made.policy, measured);
      ++unsuccessful_;
      return;
    }
    call = std::make_shared<BenchCall>(
        std::move(made.request), made.policy, measured, due,
        [this](BenchCall& ended, BenchOutcome outcome) { done(ended, std::move(outcome)); });
    calls_.emplace(call.get(), call);
  }
  call->start(stub, plan_.timeout);
}

void BenchRunner::done(BenchCall& call, BenchOutcome outcome) {
  const std::lock_guard lock(mutex_);
  ++(outcome.completed ? completed_ : unsuccessful_);
  if (!outcome.completed) rest_until_ = outcome.ended + kRest;
  generated_tokens_ += outcome.end.usage().completion_tokens();
  record_.add(outcome, interrupted_);
  const auto place = calls_.find(&call);
  ended_.push_back(std::move(place->second));
  calls_.erase(place);
  changed_.notify_all();
}

bool BenchRunner::wait(BenchClock::time_point due, const std::function<bool()>& ready) {
  while (!stop_) {
    bury();
    std::unique_lock lock(mutex_);
    const auto now = BenchClock::now();
    if (now >= due || (ready && ready())) return true;
    const auto until = due - now > kLook ? now + kLook : due;
    changed_.wait_until(lock, until, [&] { return ready && ready(); });
    lock.unlock();
    show_(state());
  }
  return false;
}

void BenchRunner::drain() {
  if (!wait(BenchClock::time_point::max(), [this] { return calls_.empty(); })) cancel_all();
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return calls_.empty(); });
  }
  bury();
}

BenchClock::time_point BenchRunner::rest_until() const {
  const std::lock_guard lock(mutex_);
  return rest_until_;
}

void BenchRunner::bury() {
  std::vector<std::shared_ptr<BenchCall>> ended;
  const std::lock_guard lock(mutex_);
  ended.swap(ended_);
}

// Outside of the lock, for a cancelled call may end on the thread that cancels it.
void BenchRunner::cancel_all() {
  std::vector<std::shared_ptr<BenchCall>> running;
  {
    const std::lock_guard lock(mutex_);
    interrupted_ = true;
    for (const auto& [key, call] : calls_) running.push_back(call);
  }
  for (const auto& call : running) call->cancel();
}

BenchState BenchRunner::state() const {
  const std::lock_guard lock(mutex_);
  BenchState now{.seconds = elapsed(),
                 .started = started_,
                 .in_flight = calls_.size(),
                 .completed = completed_,
                 .unsuccessful = unsuccessful_,
                 .generated_tokens = generated_tokens_};
  if (plan_.requests) now.done_share = static_cast<double>(measured_) / static_cast<double>(*plan_.requests);
  const double whole = measured_from_ + planned_seconds_;
  if (planned_seconds_ > 0) now.done_share = std::max(now.done_share, now.seconds / whole);
  now.done_share = std::min(now.done_share, 1.0);
  return now;
}

double BenchRunner::measured_seconds() const {
  const auto from = begin_ + clock_duration(measured_from_);
  const auto last = record_.last_end();
  const double taken = last ? std::max(0.0, std::chrono::duration<double>(*last - from).count()) : 0;
  return interrupted_ || !plan_.duration ? taken : std::max(taken, *plan_.duration);
}

}  // namespace pkv::client
