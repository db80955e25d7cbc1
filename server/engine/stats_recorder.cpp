// Counters by policy and the rows of the snapshot.
#include "server/engine/stats_recorder.h"

#include <algorithm>

#include "server/engine/cache_report.h"
#include "server/policy/policy.h"

namespace pkv {
namespace {

std::string phase_name(SequencePhase phase) {
  switch (phase) {
    case SequencePhase::kWaiting:
      return "waiting";
    case SequencePhase::kPrefill:
      return "prefill";
    case SequencePhase::kDecode:
      return "decode";
  }
  return "";
}

void add_bytes(const CacheBytes& bytes, uint64_t full_bytes, PolicyTotals& totals) {
  totals.held_bytes += bytes.held;
  totals.auxiliary_bytes += bytes.auxiliary;
  totals.full_equivalent_bytes += full_bytes;
  totals.saved_bytes += static_cast<int64_t>(full_bytes) - static_cast<int64_t>(bytes.allocated + bytes.auxiliary);
}

std::string end_name(const Sequence& sequence) {
  if (!sequence.failure.ok()) return absl::StatusCodeToString(sequence.failure.code());
  return *sequence.finish_reason == FinishReason::kStop ? "stop" : "length";
}

}  // namespace

StatsRecorder::StatsRecorder(const ModelShape& shape, absl::Time now) : shape_(shape), last_snapshot_(now) {
  for (const PolicyRow& row : policy_table()) policies_[std::string(row.name)];
}

PolicyTotals& StatsRecorder::totals_of(const Sequence& sequence) {
  return policies_[std::string(policy_row(sequence.request->policy.kind).name)];
}

void StatsRecorder::count_tokens(Sequence& sequence) {
  PolicyTotals& totals = totals_of(sequence);
  totals.generation_tokens_total += static_cast<uint64_t>(sequence.generated_tokens() - sequence.counted_generated);
  sequence.counted_generated = sequence.generated_tokens();
  if (sequence.phase == SequencePhase::kDecode && !sequence.counted_prompt) {
    totals.prompt_tokens_total += static_cast<uint64_t>(sequence.prompt_tokens());
    sequence.counted_prompt = true;
  }
}

void StatsRecorder::count_end(Sequence& sequence) {
  count_tokens(sequence);
  PolicyTotals& totals = totals_of(sequence);
  ++totals.requests_total;
  ++totals.finished_total[end_name(sequence)];
  totals.evicted_entries_total += evicted_from_prompt(sequence.outcomes, sequence.prompt_tokens());
  if (sequence.lanes) totals.evicted_while_generating_total += sequence.lanes->evicted_while_generating();
}

// Of the entries written so far: layer by layer during the prefill, then all layers of every token.
uint64_t StatsRecorder::full_equivalent_bytes(const Sequence& sequence) const {
  const uint64_t token_bytes = shape_.kv_bytes_per_token(KvDtype::kF16);
  if (sequence.phase != SequencePhase::kPrefill) {
    return sequence.lanes ? static_cast<uint64_t>(sequence.logical_tokens()) * token_bytes : 0;
  }
  const auto layer_bytes = token_bytes / static_cast<uint64_t>(shape_.layers);
  const int64_t whole_layers = std::min(sequence.layer, shape_.layers);
  const int64_t rows = sequence.layer < shape_.layers ? sequence.row : 0;
  return static_cast<uint64_t>(whole_layers * sequence.prompt_tokens() + rows) * layer_bytes;
}

void StatsRecorder::add_row(const Sequence& sequence, EngineStats& stats) {
  PolicyTotals& totals = totals_of(sequence);
  RequestRow row{.id = sequence.request->id,
                 .phase = phase_name(sequence.phase),
                 .policy = std::string(policy_row(sequence.request->policy.kind).name),
                 .prompt_tokens = sequence.prompt_tokens(),
                 .generated_tokens = sequence.generated_tokens(),
                 .age = stats.time - sequence.submitted};
  if (sequence.phase == SequencePhase::kWaiting) {
    ++stats.waiting;
    ++totals.waiting;
    stats.waiting_tokens += static_cast<uint64_t>(sequence.prompt_tokens());
  } else {
    ++stats.running;
    ++totals.running;
  }
  if (sequence.lanes) {
    row.held_bytes = sequence.lanes->bytes().held;
    row.full_bytes = full_equivalent_bytes(sequence);
    add_bytes(sequence.lanes->bytes(), row.full_bytes, totals);
  }
  for (size_t i = 0; sequence.comparison && i < sequence.comparison->rivals.size(); ++i) {
    const Rival& rival = sequence.comparison->rivals[i];
    PolicyTotals& own = policies_[std::string(policy_row(sequence.request->compare_with[i].kind).name)];
    add_bytes(rival.taught->bytes(), full_equivalent_bytes(sequence), own);
    add_bytes(rival.own->bytes(), full_equivalent_bytes(sequence), own);
  }
  stats.requests.push_back(std::move(row));
}

EngineStats StatsRecorder::snapshot(std::span<const std::shared_ptr<Sequence>> sequences, const KvCache& cache,
                                    uint64_t reserved_pages, absl::Time now) {
  const double seconds = absl::ToDoubleSeconds(std::max(now - last_snapshot_, absl::ZeroDuration()));
  last_snapshot_ = now;
  for (auto& [name, totals] : policies_) {
    totals.held_byte_seconds_total += static_cast<double>(totals.held_bytes) * seconds;
    totals.full_equivalent_byte_seconds_total += static_cast<double>(totals.full_equivalent_bytes) * seconds;
    totals.running = totals.waiting = 0;
    totals.held_bytes = totals.auxiliary_bytes = totals.full_equivalent_bytes = 0;
    totals.saved_bytes = 0;
  }

  const auto page_bytes = static_cast<uint64_t>(cache.geometry().page_bytes);
  EngineStats stats{.sequence = ++snapshots_,
                    .time = now,
                    .steps_total = steps_,
                    .pool_bytes = static_cast<uint64_t>(cache.pool().total()) * page_bytes,
                    .live_bytes = static_cast<uint64_t>(cache.pool().live()) * page_bytes,
                    .free_bytes = static_cast<uint64_t>(cache.pool().free()) * page_bytes,
                    .reserved_bytes = reserved_pages * page_bytes,
                    .cache = cache.total_bytes()};
  for (const std::shared_ptr<Sequence>& sequence : sequences) {
    count_tokens(*sequence);
    add_row(*sequence, stats);
  }
  stats.policies = policies_;
  return stats;
}

}  // namespace pkv
