// The engine's distributions: filled by the engine thread, read at any time by whoever exports them.
#pragma once

#include <vector>

#include "server/telemetry/histogram.h"

namespace pkv {

class EngineHistograms {
 public:
  // What happened to the requests of one policy; of a comparison, its baseline's.
  struct Policy {
    Policy();

    // Seconds.
    Histogram time_to_first_token;   // from arrival at the engine
    Histogram inter_token_latency;   // of every token after the first, from the one before
    Histogram request_duration;      // completed answers
    Histogram queue_duration;        // admitted requests: from arrival until the prompt is begun
    Histogram prefill_duration;      // prompts read
    Histogram compression_duration;  // prompts that were cut
    // Of completed answers.
    Histogram keep_ratio;    // held / full
    Histogram peak_bytes;    // allocated + auxiliary
    Histogram recall_ratio;  // where the report has one
  };

  EngineHistograms();
  // In the order of policy_table().
  std::vector<Policy> policies;
  // Of engine steps in which there was any.
  Histogram step_tokens;  // rows of model work
  Histogram batch_size;   // sequences that were decoded; a comparison is one
};

}  // namespace pkv
