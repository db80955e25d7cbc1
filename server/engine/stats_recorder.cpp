// Counting by policy, and the rows of a snapshot.
#include "server/engine/stats_recorder.h"

#include <algorithm>
#include <string>
#include <utility>

#include "server/engine/cache_report.h"
#include "server/policy/registry.h"

namespace pkv {
namespace {

std::string phase_name(Sequence::Phase phase) {
  switch (phase) {
    case Sequence::Phase::kWaiting:
      return "waiting";
    case Sequence::Phase::kPrefill:
      return "prefill";
    case Sequence::Phase::kDecode:
      return "decode";
  }
  return "";
}

size_t policy_index(PolicyKind kind) { return static_cast<size_t>(&policy_row(kind) - policy_table().data()); }
size_t policy_index(const Sequence& sequence) { return policy_index(sequence.request().policy.kind); }

std::string end_name(const Sequence& sequence) {
  if (!sequence.failure().ok()) return absl::StatusCodeToString(sequence.failure().code());
  return *sequence.finish_reason() == FinishReason::kStop ? "stop" : "length";
}

// The clock of the machine may be set back.
double seconds(absl::Duration duration) { return absl::ToDoubleSeconds(std::max(duration, absl::ZeroDuration())); }

// Of a rival's own answer, as Sequence::logical_tokens().
int32_t logical_tokens(const Sequence& sequence, const Comparison::Rival& rival) {
  return sequence.prompt_tokens() + std::max(0, static_cast<int32_t>(rival.tokens.size()) - 1);
}

}  // namespace

StatsRecorder::StatsRecorder(const ModelShape& shape) : shape_(shape), policies_(policy_table().size()) {}

void StatsRecorder::count_step(int64_t rows, size_t decoded) {
  ++steps_;
  if (rows > 0) histograms_->step_tokens.observe(static_cast<double>(rows));
  if (decoded > 0) histograms_->batch_size.observe(static_cast<double>(decoded));
}

void StatsRecorder::count_progress(std::span<const std::shared_ptr<Sequence>> sequences, absl::Time now) {
  for (const std::shared_ptr<Sequence>& sequence : sequences) count_progress(*sequence, now);
}

void StatsRecorder::count_progress(Sequence& sequence, absl::Time now) {
  PolicyTotals& totals = policies_[policy_index(sequence)];
  EngineHistograms::Policy& histograms = histograms_->policies[policy_index(sequence)];
  Sequence::Counted& counted = sequence.counted();
  if (sequence.prefill_started() && !std::exchange(counted.queue, true)) {
    histograms.queue_duration.observe(seconds(sequence.prefill_started_at() - sequence.submitted()));
  }
  if (sequence.phase() == Sequence::Phase::kDecode && !std::exchange(counted.prompt, true)) count_prompt(sequence, now);
  if (sequence.generated_tokens() > counted.generated) {  // by one: a step gives a sequence no more
    if (counted.generated == 0) {
      histograms.time_to_first_token.observe(seconds(sequence.first_token_at() - sequence.submitted()));
    } else {
      histograms.inter_token_latency.observe(seconds(sequence.last_token_at() - counted.token_at));
    }
    ++totals.generation_tokens_total;
    ++counted.generated;
    counted.token_at = sequence.last_token_at();
  }
  if (sequence.lanes() != nullptr) {
    const uint64_t evicted = sequence.lanes()->evicted_while_generating();
    totals.evicted_while_generating_total += evicted - std::exchange(counted.evicted, evicted);
  }
  count_bytes(sequence, now);
}

void StatsRecorder::count_prompt(Sequence& sequence, absl::Time now) {
  PolicyTotals& totals = policies_[policy_index(sequence)];
  EngineHistograms::Policy& histograms = histograms_->policies[policy_index(sequence)];
  totals.prompt_tokens_total += static_cast<uint64_t>(sequence.prompt_tokens());
  const absl::Time read_at = sequence.generated().empty() ? now : sequence.first_token_at();
  histograms.prefill_duration.observe(seconds(read_at - sequence.prefill_started_at()));
  const uint64_t evicted = evicted_from_prompt(sequence.outcomes(), sequence.prompt_tokens());
  totals.evicted_entries_total += evicted;
  if (evicted > 0) {
    ++totals.prompts_compressed_total;
    histograms.compression_duration.observe(seconds(sequence.compress_time()));
  } else {
    ++totals.prompts_unchanged_total;
  }
}

// Sequence by sequence, so that what a report says is exactly what was added to the totals.
void StatsRecorder::count_bytes(Sequence& sequence, absl::Time now) {
  const double passed = seconds(now - std::exchange(sequence.counted().bytes_at, now));
  const auto pass = [&](ByteAccount& account, PolicyKind kind) {
    const CacheReport::ByteSeconds added = account.pass(passed);
    PolicyTotals& totals = policies_[policy_index(kind)];
    totals.held_byte_seconds_total += added.held;
    totals.full_equivalent_byte_seconds_total += added.full;
  };
  if (sequence.lanes() == nullptr) return;
  const uint64_t full = full_bytes(sequence, sequence.logical_tokens());
  pass(sequence.counted().bytes, sequence.request().policy.kind);
  sequence.counted().bytes.set(sequence.lanes()->bytes().held, full);
  for (size_t i = 0; sequence.comparison() != nullptr && i < sequence.comparison()->rivals.size(); ++i) {
    Comparison::Rival& rival = sequence.comparison()->rivals[i];
    pass(rival.account, sequence.request().compare_with[i].kind);
    rival.account.set(rival.teacher_forced->bytes().held + rival.free_running->bytes().held,
                      full + full_bytes(sequence, logical_tokens(sequence, rival)));
  }
}

void StatsRecorder::count_end(Sequence& sequence) {
  count_progress(sequence, sequence.ended_at());
  PolicyTotals& totals = policies_[policy_index(sequence)];
  ++totals.requests_total;
  ++totals.finished_total[end_name(sequence)];
  if (sequence.phase() != Sequence::Phase::kWaiting && !sequence.counted().queue) {
    histograms_->policies[policy_index(sequence)].queue_duration.observe(
        seconds(sequence.ended_at() - sequence.submitted()));
  }
  if (!sequence.counted().prompt) {
    totals.evicted_entries_total += evicted_from_prompt(sequence.outcomes(), sequence.prompt_tokens());
  }
}

void StatsRecorder::count_result(const Sequence& sequence, const RequestResult& result) {
  PolicyTotals& totals = policies_[policy_index(sequence)];
  const CacheReport& report = result.cache;
  totals.reported_full_bytes_total += report.full_bytes;
  totals.reported_allocated_bytes_total += report.bytes.allocated;
  totals.reported_auxiliary_bytes_total += report.bytes.auxiliary;
  EngineHistograms::Policy& histograms = histograms_->policies[policy_index(sequence)];
  histograms.request_duration.observe(seconds(result.timings.total));
  histograms.keep_ratio.observe(kept_share(report));
  histograms.peak_bytes.observe(static_cast<double>(report.bytes.peak));
  if (const std::optional<double> recall = mean_recall(report)) histograms.recall_ratio.observe(*recall);
}

// Of the entries written so far: layer by layer during the prefill, then all layers of every token.
uint64_t StatsRecorder::full_bytes(const Sequence& sequence, int32_t logical_tokens) const {
  const uint64_t token_bytes = shape_.kv_bytes_per_token(KvDtype::kF16);
  if (sequence.phase() == Sequence::Phase::kDecode) return static_cast<uint64_t>(logical_tokens) * token_bytes;
  return static_cast<uint64_t>(sequence.prompt_rows_done(shape_.layers)) *
         (token_bytes / static_cast<uint64_t>(shape_.layers));
}

void StatsRecorder::add_cache(const SequenceLanes& lanes, uint64_t full_bytes, const KvCache& cache,
                              PolicyTotals& totals) const {
  const CacheBytes bytes = lanes.bytes();
  totals.held_bytes += bytes.held;
  totals.allocated_bytes += bytes.allocated;
  totals.auxiliary_bytes += bytes.auxiliary;
  totals.full_equivalent_bytes += full_bytes;
  totals.saved_bytes += static_cast<int64_t>(full_bytes) - static_cast<int64_t>(bytes.allocated + bytes.auxiliary);
  cache.add_layer_bytes(lanes.id(), totals.layer_held_bytes);
}

void StatsRecorder::add_sequence(const Sequence& sequence, const KvCache& cache, std::vector<PolicyTotals>& policies,
                                 EngineStats& stats) const {
  PolicyTotals& totals = policies[policy_index(sequence)];
  EngineStats::RequestRow row{.id = sequence.request().id,
                              .phase = phase_name(sequence.phase()),
                              .policy = std::string(policy_row(sequence.request().policy.kind).name),
                              .prompt_tokens = sequence.prompt_tokens(),
                              .generated_tokens = sequence.generated_tokens(),
                              .age = stats.time - sequence.submitted()};
  if (sequence.phase() == Sequence::Phase::kWaiting) {
    ++stats.waiting;
    ++totals.waiting;
    stats.waiting_tokens += static_cast<uint64_t>(sequence.prompt_tokens());
  } else {
    ++stats.running;
    ++totals.running;
  }
  if (sequence.lanes() != nullptr) {
    row.held_bytes = sequence.lanes()->bytes().held;
    row.full_bytes = full_bytes(sequence, sequence.logical_tokens());
    add_cache(*sequence.lanes(), row.full_bytes, cache, totals);
  }
  for (size_t i = 0; sequence.comparison() != nullptr && i < sequence.comparison()->rivals.size(); ++i) {
    const Comparison::Rival& rival = sequence.comparison()->rivals[i];
    PolicyTotals& its = policies[policy_index(sequence.request().compare_with[i].kind)];
    add_cache(*rival.teacher_forced, row.full_bytes, cache, its);
    add_cache(*rival.free_running, full_bytes(sequence, logical_tokens(sequence, rival)), cache, its);
  }
  stats.requests.push_back(std::move(row));
}

EngineStats StatsRecorder::snapshot(std::span<const std::shared_ptr<Sequence>> sequences, const KvCache& cache,
                                    absl::Time now) {
  const auto page_bytes = static_cast<uint64_t>(cache.geometry().page_bytes);
  EngineStats stats{.sequence = ++snapshots_,
                    .time = now,
                    .steps_total = steps_,
                    .pool_bytes = static_cast<uint64_t>(cache.pool().total()) * page_bytes,
                    .live_bytes = static_cast<uint64_t>(cache.pool().live()) * page_bytes,
                    .free_bytes = static_cast<uint64_t>(cache.pool().free()) * page_bytes,
                    .cache = cache.total_bytes(),
                    .histograms = histograms_};
  std::vector<PolicyTotals> policies = policies_;
  for (PolicyTotals& totals : policies) totals.layer_held_bytes.resize(static_cast<size_t>(shape_.layers));
  stats.requests.reserve(sequences.size());
  for (const std::shared_ptr<Sequence>& sequence : sequences) add_sequence(*sequence, cache, policies, stats);
  for (size_t i = 0; i < policies.size(); ++i) {
    stats.policies.emplace(policy_table()[i].name, std::move(policies[i]));
  }
  return stats;
}

}  // namespace pkv
