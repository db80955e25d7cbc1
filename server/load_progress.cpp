#include "server/load_progress.h"

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace pkv {
namespace {

// Rounded down: a load that is not done is not at 100 %.
uint64_t percent(uint64_t done, uint64_t all) { return all == 0 ? 0 : done * 100 / all; }
uint64_t mebibytes(uint64_t bytes) { return bytes >> 20; }

}  // namespace

void LoadProgress::tell(uint64_t done, uint64_t all) {
  done_ = done;
  all_ = all;
  const absl::Time now = absl::Now();
  if (logged_ == absl::InfinitePast()) logged_ = now;
  if (now - logged_ < kLogInterval) return;
  logged_ = now;
  log_.info("loading the model", {{"percent", percent(done, all)}, {"mebibytes", mebibytes(all)}});
}

std::string LoadProgress::text() const {
  constexpr char kLoading[] = "the model is being loaded";
  const uint64_t all = all_, done = done_;
  if (all == 0) return kLoading;
  return absl::StrCat(kLoading, " (", percent(done, all), " % of ", mebibytes(all), " MiB)");
}

}  // namespace pkv
