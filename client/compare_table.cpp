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

std::string name_of(const v1::CacheReport& report, const std::vector<std::string>& names, size_t row) {
  return row < names.size() ? names[row] : report.policy_name();
}

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

// The longest beginning of `text` of at most `most_bytes` that ends with a whole UTF-8 character.
absl::string_view clipped(const std::string& text, size_t most_bytes) {
  if (text.size() <= most_bytes) return text;
  size_t end = most_bytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return absl::string_view(text).substr(0, end);
}

// Two spaces before every line; control characters become spaces, so that an answer cannot steer the terminal.
std::string indented(const std::string& text, size_t most_bytes) {
  const absl::string_view shown = clipped(text, most_bytes);
  std::string result = "  ";
  for (char c : shown) {
    if (c == '\n') {
      result += "\n  ";
    } else {
      result += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? ' ' : c;
    }
  }
  if (shown.size() < text.size()) absl::StrAppend(&result, " ... (", text.size() - shown.size(), " bytes more)");
  return result + "\n";
}

}  // namespace

std::string compare_table(const v1::CompareResponse& reply, const std::vector<std::string>& names) {
  std::vector<Cells> rows{Cells{}};
  std::copy(kHeadings.begin(), kHeadings.end(), rows[0].begin());
  rows.push_back(cache_cells(reply.baseline().cache(), name_of(reply.baseline().cache(), names, 0)));
  for (const v1::Comparison& comparison : reply.comparisons()) {
    rows.push_back(comparison_cells(comparison, name_of(comparison.cache(), names, rows.size() - 1)));
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

std::string compare_answers(const v1::CompareResponse& reply, const std::vector<std::string>& names,
                            size_t most_bytes) {
  const v1::GenerateResponse& baseline = reply.baseline();
  std::string text = absl::StrCat(name_of(baseline.cache(), names, 0), " (baseline):\n",
                                  indented(baseline.choices_size() > 0 ? baseline.choices(0).text() : "", most_bytes));
  size_t row = 1;
  for (const v1::Comparison& comparison : reply.comparisons()) {
    absl::StrAppend(&text, name_of(comparison.cache(), names, row++), ":\n", indented(comparison.text(), most_bytes));
  }
  return text;
}

}  // namespace pkv::client
