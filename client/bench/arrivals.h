// When the requests of an open loop are due: known before any reply, so that a slow server does not slow the load.
#pragma once

#include <cstdint>
#include <optional>

#include "client/bench/workload.h"

namespace pkv::client {

// What comes first and does not count: so many seconds or so many requests, not both.
struct Warmup {
  double seconds = 0;
  uint64_t requests = 0;
};

struct ArrivalPlan {
  double rate_from = 1, rate_to = 1;  // requests a second; the rate changes evenly over the measured time
  bool poisson = true;                // else evenly spaced
  Warmup warmup;                      // at rate_from
  std::optional<double> seconds;      // measured; at least one of the two
  std::optional<uint64_t> requests;   // measured
  uint64_t seed = 0;
};

struct Arrival {
  double at = 0;  // seconds from the beginning
  bool measured = false;
};

class ArrivalSchedule {
 public:
  explicit ArrivalSchedule(const ArrivalPlan& plan);

  // Ascending in time; nothing after the last.
  std::optional<Arrival> next();
  // When the measured part begins. With a warm-up by requests that is known once it has been drawn.
  double measured_from() const { return measured_from_; }
  // Length of the measured part, as planned or as the rate makes it.
  double measured_seconds() const { return ramp_seconds_; }

 private:
  double gap();
  std::optional<Arrival> warm();
  double time_of(double load) const;

  ArrivalPlan plan_;
  WorkloadRandom random_;
  double ramp_seconds_ = 0, measured_from_ = 0;
  uint64_t warmed_ = 0, measured_ = 0;
  bool warming_ = false, first_ = true;
  double load_ = 0;  // requests expected up to the last arrival of this part
};

}  // namespace pkv::client
