// Lays out the figures of cache reports in aligned columns.
#include "client/report_table.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/policy_options.h"
#include "client/policy_words.h"
#include "client/sizes.h"

namespace pkv::client {
namespace {

double seconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) + duration.nanos() * 1e-9;
}

std::string rate(double tokens, double time) { return time > 0 ? absl::StrFormat("%.1f tok/s", tokens / time) : "-"; }

const char* scope_text(const v1::CacheReport& report) {
  switch (report.effective_policy().budget().scope()) {
    case v1::BUDGET_SCOPE_PROMPT:
      return "prompt";
    case v1::BUDGET_SCOPE_TOTAL:
      return "prompt and answer";
    default:
      return "-";
  }
}

// Why a reply saved nothing though it did cut, or hardly had anything to cut.
std::string nothing_saved(const v1::CacheReport& report) {
  const uint64_t allocated = report.allocated_bytes() + report.auxiliary_bytes();
  // A full cache that fills its pages needs a few per cent more than its entries; twice as much is a matter of pages.
  if (report.saved_bytes() > 0 || (!report.compressed() && allocated < 2 * report.full_bytes())) return "";
  return absl::StrCat("nothing saved, the text is too short: every KV head holds whole pages, ",
                      human_bytes(static_cast<double>(allocated)), " together, and its entries would fill ",
                      human_bytes(static_cast<double>(report.full_bytes())));
}

struct Row {
  const char* label;
  std::function<std::string(const ReportColumn&)> text;
};

const std::vector<Row>& rows() {
  static const std::vector<Row> kRows = {
      {"prompt tokens", [](const ReportColumn& c) { return absl::StrCat(c.usage.prompt_tokens()); }},
      {"answer tokens", [](const ReportColumn& c) { return absl::StrCat(c.usage.completion_tokens()); }},
      {"budget, entries per head",
       [](const ReportColumn& c) { return c.cache.budget_tokens() ? absl::StrCat(c.cache.budget_tokens()) : "-"; }},
      {"budget covers", [](const ReportColumn& c) { return scope_text(c.cache); }},
      {"full cache would hold", [](const ReportColumn& c) { return human_bytes(c.cache.full_bytes()); }},
      {"held at the end", [](const ReportColumn& c) { return human_bytes(c.cache.held_bytes()); }},
      {"allocated (whole pages)", [](const ReportColumn& c) { return human_bytes(c.cache.allocated_bytes()); }},
      {"auxiliary (positions, sums)", [](const ReportColumn& c) { return human_bytes(c.cache.auxiliary_bytes()); }},
      {"peak, prefill included", [](const ReportColumn& c) { return human_bytes(c.cache.peak_bytes()); }},
      {"saved",
       [](const ReportColumn& c) {
         return saved_size(static_cast<double>(c.cache.saved_bytes()), static_cast<double>(c.cache.full_bytes()));
       }},
      {"saved share",
       [](const ReportColumn& c) {
         return saved_share(static_cast<double>(c.cache.saved_bytes()), static_cast<double>(c.cache.full_bytes()));
       }},
      {"entries evicted", [](const ReportColumn& c) { return absl::StrCat(c.cache.evicted_entries()); }},
      {"attention kept, mean",
       [](const ReportColumn& c) { return c.cache.has_recall() ? percent(c.cache.recall().mean(), 1) : "-"; }},
      {"attention kept, worst head",
       [](const ReportColumn& c) { return c.cache.has_recall() ? percent(c.cache.recall().min(), 1) : "-"; }},
      {"attention computed (prefill)",
       [](const ReportColumn& c) {
         return c.cache.has_prefill() ? percent(c.cache.prefill().attended_share(), 1) : "-";
       }},
      {"attention lost (prefill)",
       [](const ReportColumn& c) { return c.cache.has_prefill() ? percent(c.cache.prefill().lost_mean(), 1) : "-"; }},
      {"workspace beside the cache",
       [](const ReportColumn& c) {
         return c.cache.workspace_bytes() > 0 ? human_bytes(static_cast<double>(c.cache.workspace_bytes())) : "-";
       }},
      {"time to first token",
       [](const ReportColumn& c) {
         const v1::Timings& timings = c.timings;
         return timings.has_time_to_first_token() ? absl::StrFormat("%.2f s", seconds(timings.time_to_first_token()))
                                                  : "-";
       }},
      {"prefill", [](const ReportColumn& c) { return rate(c.usage.prompt_tokens(), seconds(c.timings.prefill())); }},
      {"decode",
       [](const ReportColumn& c) {
         return rate(std::max(1.0, static_cast<double>(c.usage.completion_tokens())) - 1, seconds(c.timings.decode()));
       }},
  };
  return kRows;
}

std::string bar(uint32_t layer, double entries, double largest, const char* unit) {
  constexpr int kWidth = 50;
  const int filled = std::max(1, static_cast<int>(std::lround(kWidth * entries / largest)));
  return absl::StrFormat("layer %3d  %-50s %6.0f %s", layer, std::string(filled, '#'), entries, unit);
}

}  // namespace

std::string human_bytes(double bytes) {
  const double size = std::abs(bytes);
  if (size >= 1024.0 * 1024 * 1024) return absl::StrFormat("%.2f GiB", bytes / (1024.0 * 1024 * 1024));
  if (size >= 1024.0 * 1024) return absl::StrFormat("%.2f MiB", bytes / (1024.0 * 1024));
  if (size >= 1024.0) return absl::StrFormat("%.1f KiB", bytes / 1024.0);
  return absl::StrFormat("%.0f B", bytes);
}

std::string percent(double part, double whole) {
  return whole > 0 ? absl::StrFormat("%.1f %%", 100 * part / whole) : "-";
}

std::string saved_size(double saved, double full) {
  if (full <= 0) return "-";
  return saved > 0 ? human_bytes(saved) : "nothing";
}

std::string saved_share(double saved, double full) { return saved > 0 ? percent(saved, full) : "-"; }

std::vector<std::pair<std::string, std::string>> report_figures(const ReportColumn& column) {
  std::vector<std::pair<std::string, std::string>> figures;
  for (const Row& row : rows()) figures.emplace_back(row.label, row.text(column));
  return figures;
}

std::string report_table(const std::vector<ReportColumn>& columns) {
  std::string text = absl::StrFormat("%-28s", "");
  for (const ReportColumn& column : columns) absl::StrAppendFormat(&text, " %20s", column.title);
  text += '\n';
  for (const Row& row : rows()) {
    absl::StrAppendFormat(&text, "%-28s", row.label);
    for (const ReportColumn& column : columns) absl::StrAppendFormat(&text, " %20s", row.text(column));
    text += '\n';
  }
  for (const ReportColumn& column : columns) {
    if (!column.cache.compressed() && !column.cache.not_compressed_reason().empty()) {
      absl::StrAppend(&text, column.title, ": not compressed, ", column.cache.not_compressed_reason(), "\n");
    }
    if (const std::string why = nothing_saved(column.cache); !why.empty())
      absl::StrAppend(&text, column.title, ": ", why, "\n");
  }
  return text;
}

std::string layer_bars(const v1::CacheReport& report) {
  double largest = 1;
  for (const auto& layer : report.layers()) largest = std::max(largest, layer.kept_mean());
  std::string text;
  for (const auto& layer : report.layers()) {
    absl::StrAppend(&text, bar(layer.layer(), layer.kept_mean(), largest, "kept"));
    if (layer.has_recall()) absl::StrAppendFormat(&text, "  attention %5.1f %%", 100 * layer.recall().mean());
    text += '\n';
  }
  return text;
}

std::string estimate_text(const v1::EstimateCacheResponse& estimate, bool layers) {
  std::string text = absl::StrCat(describe_policy(estimate.effective_policy()), "\n");
  const auto add = [&](const char* label, const std::string& value) {
    absl::StrAppendFormat(&text, "%-28s %20s\n", label, value);
  };
  if (estimate.budget_tokens()) add("budget, entries per head", absl::StrCat(estimate.budget_tokens()));
  add("full cache would hold", human_bytes(estimate.full_bytes()));
  add("peak, prefill included", human_bytes(estimate.peak_bytes()));
  add("steady, answer included", human_bytes(estimate.steady_bytes()));
  add("workspace beside the cache", human_bytes(estimate.workspace_bytes()));
  if (estimate.smallest_budget_bytes())
    add("smallest budget in bytes", size_word_above(estimate.smallest_budget_bytes()));
  if (estimate.smallest_budget_tokens())
    add("smallest budget in entries", absl::StrCat(estimate.smallest_budget_tokens()));
  if (estimate.largest_budget_tokens()) {
    add("largest budget in entries", absl::StrCat(estimate.largest_budget_tokens()));
  }
  add("admissible now", estimate.admissible_now() ? "yes" : "no");
  add("admissible ever", estimate.admissible_ever() ? "yes" : "no");
  return layers ? text + layer_budgets(estimate) : text;
}

std::string layer_budgets(const v1::EstimateCacheResponse& estimate) {
  std::string text;
  double largest = 1;
  for (const auto& layer : estimate.layers()) largest = std::max<double>(largest, layer.budget_tokens());
  for (const auto& layer : estimate.layers())
    absl::StrAppend(&text, bar(layer.layer(), layer.budget_tokens(), largest, "entries"), "\n");
  return text;
}

}  // namespace pkv::client
