// Means, tables and checks over the figures of many comparisons.
#include "tests/bench/quality_table.h"

#include <algorithm>
#include <iostream>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace pkv {
namespace {

constexpr double kMiB = 1 << 20;
constexpr double kLeastControlRatio = 2;

std::string recall_text(const QualityRow& row, double recall) {
  return row.observes_attention ? absl::StrFormat("%.3f", recall) : "";
}

void check_policy(std::vector<QualityRow> rows, std::vector<std::string>& violations) {
  std::sort(rows.begin(), rows.end(),
            [](const QualityRow& a, const QualityRow& b) { return a.figures.kept_share < b.figures.kept_share; });
  const auto between = [](const QualityRow& small, const QualityRow& large) {
    return absl::StrCat(small.policy, ", from ", large.budget, " to ", small.budget, ": ");
  };
  for (size_t i = 1; i < rows.size(); ++i) {
    const double small = rows[i - 1].figures.recall_mean, large = rows[i].figures.recall_mean;
    if (!rows[i].observes_attention || small < large) continue;
    violations.push_back(absl::StrCat(between(rows[i - 1], rows[i]), "recall does not fall, ", large, " to ", small));
  }
  const double most = rows.back().figures.kl_mean, least = rows.front().figures.kl_mean;
  if (least > most) return;
  violations.push_back(absl::StrCat(between(rows.front(), rows.back()), "KL does not grow, ", most, " to ", least));
}

}  // namespace

void QualityFigures::add(const QualityFigures& other, double weight) {
  kept_share += weight * other.kept_share;
  peak_bytes += weight * other.peak_bytes;
  steady_bytes += weight * other.steady_bytes;
  recall_mean += weight * other.recall_mean;
  recall_min = std::min(recall_min, other.recall_min);
  kl_mean += weight * other.kl_mean;
  top1_agreement += weight * other.top1_agreement;
  identical_share += weight * other.identical_share;
  tokens_before_divergence += weight * other.tokens_before_divergence;
}

QualityFigures figures_of(const PolicyComparison& comparison, int32_t prompt_tokens, int32_t lanes) {
  const bool identical = comparison.first_divergence < 0;
  const CacheBytes& bytes = comparison.cache.bytes;
  QualityFigures figures{.peak_bytes = static_cast<double>(bytes.peak),
                         .steady_bytes = static_cast<double>(bytes.allocated + bytes.auxiliary),
                         .kl_mean = comparison.kl_mean,
                         .top1_agreement = comparison.top1_agreement,
                         .identical_share = identical ? 1.0 : 0.0,
                         .tokens_before_divergence = static_cast<double>(
                             identical ? comparison.tokens.size() : size_t(comparison.first_divergence))};
  for (const LayerOutcome& layer : comparison.cache.layers) {
    for (const int32_t kept : layer.kept) figures.kept_share += kept / (double(lanes) * prompt_tokens);
    for (const double recall : layer.recall) {
      figures.recall_mean += recall / lanes;
      figures.recall_min = std::min(figures.recall_min, recall);
    }
  }
  return figures;
}

nlohmann::json to_json(const QualityRow& row, const std::string& text) {
  const QualityFigures& figures = row.figures;
  nlohmann::json json{{"text", text},
                      {"policy", row.policy},
                      {"budget", row.budget},
                      {"kept_share", figures.kept_share},
                      {"peak_bytes", figures.peak_bytes},
                      {"steady_bytes", figures.steady_bytes},
                      {"kl_mean", figures.kl_mean},
                      {"top1_agreement", figures.top1_agreement},
                      {"identical_share", figures.identical_share},
                      {"tokens_before_divergence", figures.tokens_before_divergence}};
  if (row.observes_attention) {
    json["recall_mean"] = figures.recall_mean;
    json["recall_min"] = figures.recall_min;
  }
  return json;
}

nlohmann::json to_json(const NegativeControl& control) {
  return {{"negative_control", "streaming_llm, sink_tokens 0 against 4"},
          {"budget", control.budget},
          {"kl_with", control.kl_with},
          {"kl_without", control.kl_without},
          {"ratio", control.ratio()},
          {"top1_with", control.top1_with},
          {"top1_without", control.top1_without}};
}

void print_table(const std::vector<QualityRow>& rows) {
  std::cout << "| budget | policy | kept | peak MiB | steady MiB | recall mean | min | mean KL | top-1 | identical | "
               "same tokens |\n|---|---|---|---|---|---|---|---|---|---|---|\n";
  for (const QualityRow& row : rows) {
    const QualityFigures& figures = row.figures;
    std::cout << absl::StrFormat("| %s | %s | %.1f %% | %.1f | %.1f | %s | %s | %.3f | %.1f %% | %.0f %% | %.1f |\n",
                                 row.budget, row.policy, 100 * figures.kept_share, figures.peak_bytes / kMiB,
                                 figures.steady_bytes / kMiB, recall_text(row, figures.recall_mean),
                                 recall_text(row, figures.recall_min), figures.kl_mean, 100 * figures.top1_agreement,
                                 100 * figures.identical_share, figures.tokens_before_divergence);
  }
  std::cout << std::endl;
}

void print_table(const std::vector<NegativeControl>& controls) {
  std::cout << "| budget | mean KL with the first tokens | without | ratio | top-1 with | without "
               "|\n|---|---|---|---|---|---|\n";
  for (const NegativeControl& control : controls) {
    std::cout << absl::StrFormat("| %s | %.3f | %.3f | %.1f | %.1f %% | %.1f %% |\n", control.budget, control.kl_with,
                                 control.kl_without, control.ratio(), 100 * control.top1_with,
                                 100 * control.top1_without);
  }
  std::cout << std::endl;
}

std::vector<std::string> quality_violations(const std::vector<QualityRow>& rows,
                                            const std::vector<NegativeControl>& controls) {
  std::vector<std::string> violations;
  std::map<std::string, std::vector<QualityRow>> policies;
  for (const QualityRow& row : rows) policies[row.policy].push_back(row);
  for (const auto& [policy, budgets] : policies) {
    if (budgets.size() < 2) {
      violations.push_back(absl::StrCat(policy, ": one budget shows no trend"));
    } else {
      check_policy(budgets, violations);
    }
  }
  for (const NegativeControl& control : controls) {
    if (control.ratio() > kLeastControlRatio) continue;
    violations.push_back(absl::StrCat("negative control at ", control.budget, ": without the first tokens KL is ",
                                      control.kl_without, ", with them ", control.kl_with));
  }
  return violations;
}

}  // namespace pkv
