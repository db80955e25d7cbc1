// Points of a process of rate 1, or whole numbers, moved to where the load has added up to them.
#include "client/bench/arrivals.h"

#include <cmath>

namespace pkv::client {
namespace {

constexpr uint64_t kArrivalStream = ~uint64_t{0};  // no request has this number

}  // namespace

ArrivalSchedule::ArrivalSchedule(const ArrivalPlan& plan)
    : plan_(plan), random_(plan.seed, kArrivalStream), measured_from_(plan.warmup.seconds) {
  ramp_seconds_ = plan.seconds ? *plan.seconds
                               : 2 * static_cast<double>(plan.requests.value_or(0)) / (plan.rate_from + plan.rate_to);
  warming_ = plan.warmup.seconds > 0 || plan.warmup.requests > 0;
}

// Evenly spaced arrivals begin at once, at 0.
double ArrivalSchedule::gap() {
  if (plan_.poisson) return random_.exponential();
  return first_ ? 0 : 1;
}

// When, from the beginning of the measured part, `load` requests are expected: rate_from * t + slope / 2 * t^2 = load,
// and rate_to after the ramp.
double ArrivalSchedule::time_of(double load) const {
  const double whole = (plan_.rate_from + plan_.rate_to) / 2 * ramp_seconds_;
  if (load >= whole) return ramp_seconds_ + (load - whole) / plan_.rate_to;
  const double slope = (plan_.rate_to - plan_.rate_from) / ramp_seconds_;
  // The root in a form that does not cancel where the slope is small.
  return 2 * load / (plan_.rate_from + std::sqrt(plan_.rate_from * plan_.rate_from + 2 * slope * load));
}

// The next arrival of the warm-up; at its end nothing.
std::optional<Arrival> ArrivalSchedule::warm() {
  const bool by_requests = plan_.warmup.requests > 0;
  if (!by_requests || warmed_ < plan_.warmup.requests) {
    load_ += gap();
    first_ = false;
    const double at = load_ / plan_.rate_from;
    if (by_requests || at < plan_.warmup.seconds) {
      ++warmed_;
      return Arrival{.at = at, .measured = false};
    }
  } else {
    measured_from_ = (load_ + (plan_.poisson ? 0 : 1)) / plan_.rate_from;
  }
  return std::nullopt;
}

std::optional<Arrival> ArrivalSchedule::next() {
  if (warming_) {
    if (const auto arrival = warm()) return arrival;
    warming_ = false;
    first_ = true;
    load_ = 0;
  }
  if (plan_.requests && measured_ == *plan_.requests) return std::nullopt;
  load_ += gap();
  first_ = false;
  const double at = time_of(load_);
  if (plan_.seconds && at >= *plan_.seconds) return std::nullopt;
  ++measured_;
  return Arrival{.at = measured_from_ + at, .measured = true};
}

}  // namespace pkv::client
