// Where the buckets end. A bucket more is a series more for every policy, so there are about a dozen each, closest
// where requests are expected.
#include "server/engine/histograms.h"

#include "server/policy/registry.h"

namespace pkv {
namespace {

constexpr double kFirstToken[] = {0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100};
constexpr double kBetweenTokens[] = {0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03,
                                     0.05,  0.075,  0.1,   0.2,    0.5,  1,     2.5};
constexpr double kRequest[] = {0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000};
constexpr double kQueue[] = {0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300};
constexpr double kCompression[] = {0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5};
// Beyond 1 lie caches of f32 entries that keep more than half.
constexpr double kKept[] = {0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 1};
constexpr double kRecall[] = {0.25, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99, 0.999, 1};
// 64 KiB to 64 GiB, each four times the one before.
constexpr double kBytes[] = {0x1p16, 0x1p18, 0x1p20, 0x1p22, 0x1p24, 0x1p26, 0x1p28, 0x1p30, 0x1p32, 0x1p34, 0x1p36};
constexpr double kRows[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096};
constexpr double kSequences[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};

}  // namespace

EngineHistograms::Policy::Policy()
    : time_to_first_token(kFirstToken),
      inter_token_latency(kBetweenTokens),
      request_duration(kRequest),
      queue_duration(kQueue),
      prefill_duration(kFirstToken),
      compression_duration(kCompression),
      keep_ratio(kKept),
      peak_bytes(kBytes),
      recall_ratio(kRecall) {}

EngineHistograms::EngineHistograms() : policies(policy_table().size()), step_tokens(kRows), batch_size(kSequences) {}

}  // namespace pkv
