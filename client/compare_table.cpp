// Lays out a comparison: what each policy kept, what it cost in attention and in the model's distributions, where
// answers part.
#include "client/compare_table.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/report_table.h"

namespace pkv::client {
namespace {

constexpr size_t kColumns = 10;
using Cells = std::array<std::string, kColumns>;

constexpr std::array<const char*, kColumns> kHeadings{"policy",     "budget",  "kept",   "peak",  "recall mean",
                                                      "recall min", "KL mean", "KL max", "top-1", "differs at"};

// What the cache report alone says; the rest is filled in for policies that were compared.
Cells cache_cells(const v1::CacheReport& report, std::string name) {
  Cells cells;
  cells.fill("-");
  cells[0] = std::move(name);
  if (report.budget_tokens() > 0) cells[1] = absl::StrCat(report.budget_tokens());
  cells[2] = percent(static_cast<double>(report.held_bytes()), static_cast<double>(report.full_bytes()));
  cells[3] = human_bytes(static_cast<double>(report.peak_bytes()));
  if (report.has_recall()) {
    cells[4] = absl::StrFormat("%.4f", report.recall().mean());
    cells[5] = absl::StrFormat("%.4f", report.recall().min());
  }
  return cells;
}

Cells comparison_cells(const v1::Comparison& comparison, std::string name) {
  Cells cells = cache_cells(comparison.cache(), std::move(name));
  if (comparison.kl_size() > 0) {
    cells[6] = absl::StrFormat("%.4f", comparison.kl_mean());
    cells[7] = absl::StrFormat("%.4f", *std::max_element(comparison.kl().begin(), comparison.kl().end()));
    cells[8] = percent(comparison.top1_agreement(), 1);
  }
  cells[9] = comparison.first_divergence() < 0 ? "same" : absl::StrCat("token ", comparison.first_divergence());
  return cells;
}

}  // namespace

std::string compared_name(const v1::CacheReport& report, const std::vector<std::string>& names, size_t row) {
  return row < names.size() ? names[row] : report.policy_name();
}

std::string compare_table(const v1::CompareResponse& reply, const std::vector<std::string>& names) {
  std::vector<Cells> rows{Cells{}};
  std::copy(kHeadings.begin(), kHeadings.end(), rows[0].begin());
  rows.push_back(cache_cells(reply.baseline().cache(), compared_name(reply.baseline().cache(), names, 0)));
  for (const v1::Comparison& comparison : reply.comparisons()) {
    rows.push_back(comparison_cells(comparison, compared_name(comparison.cache(), names, rows.size() - 1)));
  }
  std::array<size_t, kColumns> widths{};
  for (const Cells& row : rows) {
    for (size_t i = 0; i < kColumns; ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const Cells& row : rows) {
    absl::StrAppendFormat(&text, "%-*s", static_cast<int>(widths[0]), row[0]);
    for (size_t i = 1; i < kColumns; ++i) absl::StrAppendFormat(&text, "  %*s", static_cast<int>(widths[i]), row[i]);
    text += '\n';
  }
  return text;
}

}  // namespace pkv::client
