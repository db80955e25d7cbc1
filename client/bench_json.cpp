// The report as JSON: everything that was asked for and everything that was measured.
#include "client/bench_report.h"
#include "client/json_writer.h"

namespace pkv::client {
namespace {

void add_times(JsonWriter& json, const char* key, const BenchHistogram& times) {
  json.open_object(key);
  json.add("count", times.count());
  if (times.count() > 0) {
    json.add("mean", times.mean());
    json.add("min", times.min());
    json.add("p50", times.percentile(50));
    json.add("p90", times.percentile(90));
    json.add("p95", times.percentile(95));
    json.add("p99", times.percentile(99));
    json.add("max", times.max());
  }
  json.close_object();
}

void add_sums(JsonWriter& json, const BenchSums& sums) {
  json.add("completed", sums.completed);
  json.add("prompt_tokens", sums.prompt_tokens);
  json.add("generated_tokens", sums.generated_tokens);
  json.add("full_bytes", sums.full_bytes);
  json.add("held_bytes", sums.held_bytes);
  json.add("allocated_bytes", sums.allocated_bytes);
  json.add("auxiliary_bytes", sums.auxiliary_bytes);
  json.add("saved_bytes", sums.saved_bytes);
  json.add("peak_bytes", sums.peak_bytes);
  json.add("evicted_entries", sums.evicted_entries);
  if (sums.held_byte_seconds) json.add("held_byte_seconds", *sums.held_byte_seconds);
  if (sums.full_byte_seconds) json.add("full_byte_seconds", *sums.full_byte_seconds);
}

void add_counts(JsonWriter& json, const char* key, const std::map<std::string, uint64_t>& counts) {
  json.open_object(key);
  for (const auto& [name, count] : counts) json.add(name, count);
  json.close_object();
}

void add_mean(JsonWriter& json, const char* key, double sum, uint64_t count) {
  if (count > 0) {
    json.add(key, sum / static_cast<double>(count));
  } else {
    json.add_null(key);
  }
}

void add_throughput(JsonWriter& json, const BenchFigures& figures, const BenchLimits& limits, double seconds) {
  const auto rate = [seconds](uint64_t number) { return seconds > 0 ? static_cast<double>(number) / seconds : 0; };
  json.open_object("throughput");
  json.add("requests_per_second", rate(figures.sums.completed));
  json.add("prompt_tokens_per_second", rate(figures.sums.prompt_tokens));
  json.add("generated_tokens_per_second", rate(figures.sums.generated_tokens));
  json.close_object();
  if (!limits.any()) return;
  json.open_object("goodput");
  json.add("within_limits", figures.within_limits);
  add_mean(json, "share", static_cast<double>(figures.within_limits), figures.calls() - figures.cancelled);
  json.add("requests_per_second", rate(figures.within_limits));
  json.close_object();
}

void add_figures(JsonWriter& json, const BenchFigures& figures, const BenchLimits& limits, double seconds) {
  json.open_object("calls");
  json.add("all", figures.calls());
  json.add("completed", figures.sums.completed);
  json.add("refused", figures.refused);
  json.add("failed", figures.failed);
  json.add("cancelled", figures.cancelled);
  json.add("dropped", figures.dropped);
  json.close_object();
  add_counts(json, "refused_by_reason", figures.refusals);
  add_counts(json, "failed_by_code", figures.errors);
  add_throughput(json, figures, limits, seconds);
  add_times(json, "time_to_first_token_seconds", figures.first_token);
  add_times(json, "inter_token_seconds", figures.inter_token);
  add_times(json, "request_seconds", figures.total);
  add_times(json, "queue_seconds", figures.queue);
  add_times(json, "sent_late_seconds", figures.lag);
  json.open_object("cache");
  add_mean(json, "keep_ratio_mean", figures.keep_ratio_sum, figures.keep_ratios);
  add_mean(json, "recall_mean", figures.recall_sum, figures.recalls);
  if (figures.recalls > 0) json.add("recall_min", figures.recall_min);
  json.close_object();
  json.open_object("sums");
  add_sums(json, figures.sums);
  json.close_object();
}

void add_parameters(JsonWriter& json, const BenchPlan& plan) {
  json.open_object("parameters");
  for (const auto& [name, word] : plan.words) {
    if (word.empty()) {
      json.add_null(name);
    } else {
      json.add(name, word);
    }
  }
  json.close_object();
}

}  // namespace

std::string bench_json(const BenchReport& report) {
  const BenchLimits& limits = report.record.limits();
  JsonWriter json;
  json.open_object();
  json.add("client_version", PKV_VERSION);
  json.add("server_version", report.server_version);
  json.add("server", report.target);
  json.add("model", report.model);
  json.add("started_at", report.started_at);
  json.add("seed", report.plan.seed);
  add_parameters(json, report.plan);
  json.add("interrupted", report.interrupted);
  json.add("warmup_calls", report.record.warmup_calls());
  json.add("measured_seconds", report.seconds);
  json.open_object("all");
  add_figures(json, report.record.all(), limits, report.seconds);
  json.close_object();
  json.open_list("policies");
  for (size_t i = 0; i < report.mix.size(); ++i) {
    json.open_object();
    json.add("policy", report.mix[i].text);
    add_figures(json, report.record.policy(i), limits, report.seconds);
    json.close_object();
  }
  json.close_list();
  // What the server's counters have grown by, where nobody else asked it and no call failed or was cancelled.
  json.open_object("server_sums_with_warmup");
  for (const auto& [name, sums] : report.record.sums()) {
    json.open_object(name);
    add_sums(json, sums);
    json.close_object();
  }
  json.close_object();
  json.close_object();
  return json.text();
}

}  // namespace pkv::client
