// Durations and instants between absl and protobuf's well-known types.
#pragma once

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>

#include "absl/time/time.h"

namespace pkv {

inline void set_duration(absl::Duration value, google::protobuf::Duration& out) {
  absl::Duration rest;
  out.set_seconds(absl::IDivDuration(value, absl::Seconds(1), &rest));
  out.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
}

inline absl::Duration to_absl(const google::protobuf::Duration& value) {
  return absl::Seconds(value.seconds()) + absl::Nanoseconds(value.nanos());
}

inline void set_timestamp(absl::Time value, google::protobuf::Timestamp& out) {
  google::protobuf::Duration since_epoch;
  set_duration(value - absl::UnixEpoch(), since_epoch);
  out.set_seconds(since_epoch.seconds());
  out.set_nanos(since_epoch.nanos());
}

}  // namespace pkv
