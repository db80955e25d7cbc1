// Adds calls up.
#include "client/bench/figures.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/ascii.h"

namespace pkv::client {
namespace {

double seconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) + duration.nanos() * 1e-9;
}

// A field that servers of this contract may not have yet is looked up by its name.
void add_byte_seconds(const v1::CacheReport& report, const char* name, std::optional<double>& sum) {
  const auto* field = v1::CacheReport::descriptor()->FindFieldByName(name);
  if (field == nullptr || field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_DOUBLE) return;
  sum = sum.value_or(0) + report.GetReflection()->GetDouble(report, field);
}

// A server's word as a key: of letters, digits and '_' only, not long, and not one of endlessly many.
template <typename Map>
typename Map::mapped_type& at_word(Map& map, const std::string& word) {
  constexpr size_t kMostWords = 64, kMostBytes = 64;
  std::string key = word.empty() ? "UNKNOWN" : word.substr(0, kMostBytes);
  std::replace_if(
      key.begin(), key.end(), [](char c) { return !absl::ascii_isalnum(c) && c != '_'; }, '?');
  return map.size() < kMostWords || map.contains(key) ? map[key] : map["OTHER"];
}

bool meets(const BenchOutcome& outcome, const BenchLimits& limits) {
  if (limits.ttft && outcome.first_token > *limits.ttft) return false;
  if (!limits.itl || outcome.gaps.empty()) return true;
  const double sum = std::accumulate(outcome.gaps.begin(), outcome.gaps.end(), 0.0);
  return sum / static_cast<double>(outcome.gaps.size()) <= *limits.itl;
}

}  // namespace

void BenchSums::add(const v1::StreamEnd& end) {
  const v1::CacheReport& cache = end.cache();
  ++completed;
  prompt_tokens += end.usage().prompt_tokens();
  generated_tokens += end.usage().completion_tokens();
  evicted_entries += cache.evicted_entries();
  full_bytes += cache.full_bytes();
  held_bytes += cache.held_bytes();
  allocated_bytes += cache.allocated_bytes();
  auxiliary_bytes += cache.auxiliary_bytes();
  peak_bytes += cache.peak_bytes();
  saved_bytes += cache.saved_bytes();
  add_byte_seconds(cache, "held_byte_seconds", held_byte_seconds);
  add_byte_seconds(cache, "full_byte_seconds", full_byte_seconds);
}

void BenchFigures::add(const BenchOutcome& outcome, const BenchLimits& limits, bool interrupted) {
  lag.add(outcome.lag);
  if (!outcome.completed) {
    if (interrupted && outcome.code == "CANCELLED") {
      ++cancelled;
    } else if (!outcome.reason.empty() && !outcome.admitted) {
      ++refused;
      ++at_word(refusals, outcome.reason);
    } else {
      ++failed;
      ++errors[outcome.code];
    }
    return;
  }
  const v1::CacheReport& cache = outcome.end.cache();
  sums.add(outcome.end);
  if (outcome.end.usage().completion_tokens() > 0) first_token.add(outcome.first_token);
  for (float gap : outcome.gaps) inter_token.add(static_cast<double>(gap));
  total.add(outcome.total);
  queue.add(seconds(outcome.end.timings().queue()));
  if (cache.full_bytes() > 0) {
    keep_ratio_sum += static_cast<double>(cache.held_bytes()) / static_cast<double>(cache.full_bytes());
    ++keep_ratios;
  }
  if (cache.has_recall()) {
    recall_sum += cache.recall().mean();
    recall_min = std::min(recall_min, cache.recall().min());
    ++recalls;
  }
  if (meets(outcome, limits)) ++within_limits;
}

void BenchRecord::add(const BenchOutcome& outcome, bool interrupted) {
  if (outcome.completed) {
    at_word(sums_, outcome.end.cache().policy_name()).add(outcome.end);
  } else if (!interrupted) {
    any_unanswered_ = true;
  }
  if (!outcome.measured) {
    ++warmup_calls_;
    return;
  }
  all_.add(outcome, limits_, interrupted);
  policies_[outcome.policy].add(outcome, limits_, interrupted);
  last_end_ = std::max(last_end_.value_or(outcome.ended), outcome.ended);
}

void BenchRecord::drop(size_t policy, bool measured) {
  any_unanswered_ = true;
  if (!measured) {
    ++warmup_calls_;
    return;
  }
  ++all_.dropped;
  ++policies_[policy].dropped;
}

}  // namespace pkv::client
