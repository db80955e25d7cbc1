// Rows of figures, columns of policies, then what went wrong.
#include <functional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/bench/report.h"
#include "client/report_table.h"

namespace pkv::client {
namespace {

struct Column {
  std::string title;
  const BenchFigures& figures;
};

struct Row {
  std::string label;
  std::function<std::string(const BenchFigures&)> text;
};

std::string milliseconds(const BenchHistogram& times, double percent) {
  if (times.count() == 0) return "-";
  return absl::StrFormat("%.1f", 1000 * (percent >= 100 ? times.max() : times.percentile(percent)));
}

using Histogram = BenchHistogram BenchFigures::*;

void add_times(std::vector<Row>& rows, const char* label, Histogram histogram) {
  struct Percentile {
    const char* label;
    double percent;
  };
  constexpr Percentile kPercentiles[] = {{"p50", 50}, {"p90", 90}, {"p95", 95}, {"p99", 99}, {"max", 100}};
  for (const auto& [name, percent] : kPercentiles) {
    rows.push_back({absl::StrCat(label, " ", name, ", ms"),
                    [histogram, p = percent](const BenchFigures& f) { return milliseconds(f.*histogram, p); }});
  }
}

void add_count(std::vector<Row>& rows, const char* label, uint64_t BenchFigures::*count) {
  rows.push_back({label, [count](const BenchFigures& f) { return absl::StrCat(f.*count); }});
}

void add_rates(std::vector<Row>& rows, const BenchReport& report) {
  const double seconds = report.seconds;
  const auto rate = [seconds](uint64_t number) {
    return seconds > 0 ? absl::StrFormat("%.2f", static_cast<double>(number) / seconds) : "-";
  };
  rows.push_back({"requests/s", [rate](const BenchFigures& f) { return rate(f.sums.completed); }});
  rows.push_back({"prompt tokens/s", [rate](const BenchFigures& f) { return rate(f.sums.prompt_tokens); }});
  rows.push_back({"generated tokens/s", [rate](const BenchFigures& f) { return rate(f.sums.generated_tokens); }});
  if (!report.record.limits().any()) return;
  rows.push_back({"goodput, requests/s", [rate](const BenchFigures& f) { return rate(f.within_limits); }});
  rows.push_back({"within the limits", [](const BenchFigures& f) {
                    return percent(static_cast<double>(f.within_limits), static_cast<double>(f.calls() - f.cancelled));
                  }});
}

void add_memory(std::vector<Row>& rows) {
  rows.push_back({"saved, sum", [](const BenchFigures& f) {
                    return saved_size(static_cast<double>(f.sums.saved_bytes), static_cast<double>(f.sums.full_bytes));
                  }});
  rows.push_back({"saved share", [](const BenchFigures& f) {
                    return saved_share(static_cast<double>(f.sums.saved_bytes), static_cast<double>(f.sums.full_bytes));
                  }});
  rows.push_back({"kept at the end, mean",
                  [](const BenchFigures& f) { return percent(f.keep_ratio_sum, static_cast<double>(f.keep_ratios)); }});
  rows.push_back({"peak, mean", [](const BenchFigures& f) {
                    const auto count = static_cast<double>(f.sums.completed);
                    return count > 0 ? human_bytes(static_cast<double>(f.sums.peak_bytes) / count) : "-";
                  }});
  rows.push_back({"attention kept, mean",
                  [](const BenchFigures& f) { return percent(f.recall_sum, static_cast<double>(f.recalls)); }});
}

std::vector<Row> rows_of(const BenchReport& report) {
  std::vector<Row> rows{{"calls", [](const BenchFigures& f) { return absl::StrCat(f.calls()); }},
                        {"completed", [](const BenchFigures& f) { return absl::StrCat(f.sums.completed); }}};
  add_count(rows, "refused by the server", &BenchFigures::refused);
  add_count(rows, "failed", &BenchFigures::failed);
  add_count(rows, "dropped by the client", &BenchFigures::dropped);
  if (report.interrupted) add_count(rows, "cancelled", &BenchFigures::cancelled);
  add_rates(rows, report);
  add_times(rows, "first token", &BenchFigures::first_token);
  add_times(rows, "between tokens", &BenchFigures::inter_token);
  add_times(rows, "whole answer", &BenchFigures::total);
  add_times(rows, "queue (server)", &BenchFigures::queue);
  rows.push_back({"sent late p99, ms", [](const BenchFigures& f) { return milliseconds(f.lag, 99); }});
  add_memory(rows);
  return rows;
}

std::string load_text(const BenchPlan& plan) {
  if (!plan.trace.empty()) return absl::StrFormat("trace %s at speed %g", plan.trace, plan.speed);
  if (plan.concurrency) return absl::StrCat("closed loop, ", *plan.concurrency, " in flight");
  const ArrivalPlan& arrivals = *plan.arrivals;
  const std::string rate = arrivals.rate_from == arrivals.rate_to
                               ? absl::StrFormat("%g", arrivals.rate_from)
                               : absl::StrFormat("%g to %g", arrivals.rate_from, arrivals.rate_to);
  return absl::StrCat("open loop, ", rate, " requests/s, ", arrivals.poisson ? "Poisson" : "evenly spaced");
}

}  // namespace

std::string bench_table(const BenchReport& report) {
  constexpr int kLabelWidth = 24;
  std::vector<Column> columns{{"all", report.record.all()}};
  for (size_t i = 0; i < report.mix.size(); ++i) {
    if (report.record.policy(i).calls() > 0) columns.push_back({report.mix[i].text, report.record.policy(i)});
  }
  std::string text =
      absl::StrFormat("%s, model %s; %s, seed %d; %.1f s measured, %d calls of warm-up before%s\n\n", report.target,
                      report.model, load_text(report.plan), report.plan.seed, report.seconds,
                      report.record.warmup_calls(), report.interrupted ? "; INTERRUPTED" : "");
  const auto add_line = [&](const std::string& label, const std::function<std::string(const Column&)>& cell) {
    absl::StrAppendFormat(&text, "%-*s", kLabelWidth, label);
    for (const Column& column : columns) {
      const int width = static_cast<int>(std::max<size_t>(12, column.title.size() + 2));
      absl::StrAppendFormat(&text, "%*s", width, cell(column));
    }
    text += '\n';
  };
  add_line("", [](const Column& column) { return column.title; });
  for (const Row& row : rows_of(report))
    add_line(row.label, [&](const Column& column) { return row.text(column.figures); });
  for (const auto& [reason, count] : report.record.all().refusals)
    absl::StrAppendFormat(&text, "refused with %s: %d\n", reason, count);
  for (const auto& [code, count] : report.record.all().errors)
    absl::StrAppendFormat(&text, "failed with %s: %d\n", code, count);
  return text;
}

}  // namespace pkv::client
