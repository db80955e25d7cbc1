// The report as JSON: everything that was asked for and everything that was measured.
#include <nlohmann/json.hpp>

#include "client/bench/report.h"

namespace pkv::client {
namespace {

using Json = nlohmann::ordered_json;  // members stay in the order in which they are named

Json times(const BenchHistogram& seconds) {
  Json json = {{"count", seconds.count()}};
  if (seconds.count() == 0) return json;
  json["mean"] = seconds.mean();
  json["min"] = seconds.min();
  for (const int percent : {50, 90, 95, 99}) json["p" + std::to_string(percent)] = seconds.percentile(percent);
  json["max"] = seconds.max();
  return json;
}

Json sums_of(const BenchSums& sums) {
  Json json = {{"completed", sums.completed},
               {"prompt_tokens", sums.prompt_tokens},
               {"generated_tokens", sums.generated_tokens},
               {"full_bytes", sums.full_bytes},
               {"held_bytes", sums.held_bytes},
               {"allocated_bytes", sums.allocated_bytes},
               {"auxiliary_bytes", sums.auxiliary_bytes},
               {"saved_bytes", sums.saved_bytes},
               {"peak_bytes", sums.peak_bytes},
               {"evicted_entries", sums.evicted_entries}};
  if (sums.held_byte_seconds) json["held_byte_seconds"] = *sums.held_byte_seconds;
  if (sums.full_byte_seconds) json["full_byte_seconds"] = *sums.full_byte_seconds;
  return json;
}

// null where there is nothing to take the mean of
Json mean(double sum, uint64_t count) { return count > 0 ? Json(sum / static_cast<double>(count)) : Json(nullptr); }

Json rate(uint64_t number, double seconds) { return seconds > 0 ? static_cast<double>(number) / seconds : 0.0; }

Json figures_of(const BenchFigures& figures, const BenchLimits& limits, double seconds) {
  const BenchSums& sums = figures.sums;
  Json json = {{"calls",
                {{"all", figures.calls()},
                 {"completed", sums.completed},
                 {"refused", figures.refused},
                 {"failed", figures.failed},
                 {"cancelled", figures.cancelled},
                 {"dropped", figures.dropped}}},
               {"refused_by_reason", Json::object_t(figures.refusals.begin(), figures.refusals.end())},
               {"failed_by_code", Json::object_t(figures.errors.begin(), figures.errors.end())},
               {"throughput",
                {{"requests_per_second", rate(sums.completed, seconds)},
                 {"prompt_tokens_per_second", rate(sums.prompt_tokens, seconds)},
                 {"generated_tokens_per_second", rate(sums.generated_tokens, seconds)}}}};
  if (limits.any()) {
    json["goodput"] = {{"within_limits", figures.within_limits},
                       {"share", mean(static_cast<double>(figures.within_limits), figures.calls() - figures.cancelled)},
                       {"requests_per_second", rate(figures.within_limits, seconds)}};
  }
  json["time_to_first_token_seconds"] = times(figures.first_token);
  json["inter_token_seconds"] = times(figures.inter_token);
  json["request_seconds"] = times(figures.total);
  json["queue_seconds"] = times(figures.queue);
  json["sent_late_seconds"] = times(figures.lag);
  json["cache"] = {{"keep_ratio_mean", mean(figures.keep_ratio_sum, figures.keep_ratios)},
                   {"recall_mean", mean(figures.recall_sum, figures.recalls)}};
  if (figures.recalls > 0) json["cache"]["recall_min"] = figures.recall_min;
  json["sums"] = sums_of(sums);
  return json;
}

Json parameters_of(const BenchPlan& plan) {
  Json json = Json::object();
  for (const auto& [name, word] : plan.words) json[name] = word.empty() ? Json(nullptr) : Json(word);
  return json;
}

}  // namespace

std::string bench_json(const BenchReport& report) {
  const BenchLimits& limits = report.record.limits();
  Json json = {
      {"client_version", PKV_VERSION},
      {"server_version", report.server_version},
      {"server", report.target},
      {"model", report.model},
      {"started_at", report.started_at},
      {"seed", report.plan.seed},
      {"parameters", parameters_of(report.plan)},
      {"interrupted", report.interrupted},
      {"warmup_calls", report.record.warmup_calls()},
      {"measured_seconds", report.seconds},
      {"all", figures_of(report.record.all(), limits, report.seconds)},
      {"policies", Json::array()},
      // What the server's counters have grown by, where nobody else asked it and no call failed or was cancelled.
      {"server_sums_with_warmup", Json::object()}};
  for (size_t i = 0; i < report.mix.size(); ++i) {
    Json& policy = json["policies"].emplace_back(Json{{"policy", report.mix[i].text}});
    policy.update(figures_of(report.record.policy(i), limits, report.seconds));
  }
  for (const auto& [name, sums] : report.record.sums()) json["server_sums_with_warmup"][name] = sums_of(sums);
  // Words of a server need not be UTF-8.
  return json.dump(2, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace) + "\n";
}

}  // namespace pkv::client
