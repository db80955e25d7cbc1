// Lays out estimates and picks among them.
#include "client/estimate_table.h"

#include <tuple>

#include "absl/strings/str_cat.h"
#include "client/policy_words.h"
#include "client/report_table.h"
#include "client/sizes.h"
#include "client/text_table.h"

namespace pkv::client {
namespace {

const char* fits_word(const v1::EstimateCacheResponse& estimate) {
  return estimate.admissible_now() ? "now" : estimate.admissible_ever() ? "later" : "never";
}

// Of the bytes of a full cache at the end.
std::string share_saved(const v1::EstimateCacheResponse& estimate) {
  const auto full = static_cast<double>(estimate.full_bytes()), steady = static_cast<double>(estimate.steady_bytes());
  return saved_share(full - steady, full);
}

std::string smallest_budget(const v1::EstimateCacheResponse& estimate) {
  if (estimate.smallest_budget_tokens() == 0) return "-";
  std::string text = absl::StrCat(estimate.smallest_budget_tokens());
  if (estimate.smallest_budget_bytes() > 0)
    absl::StrAppend(&text, " or ", size_word_above(estimate.smallest_budget_bytes()));
  return text;
}

// Whether entries are dropped at all; what keeps all comes before every budget.
bool keeps_all(const v1::EstimateCacheResponse& estimate) { return estimate.effective_policy().has_full(); }

}  // namespace

std::string estimate_table(const std::vector<EstimateRow>& rows) {
  TextTable table{.rows = {{"policy", "entries", "peak", "steady", "full cache", "saved", "fits", "smallest budget"}},
                  .right = {false, true, true, true, true, true, false, true}};
  for (const EstimateRow& row : rows) {
    const v1::EstimateCacheResponse& estimate = row.estimate;
    table.rows.push_back({row.name, estimate.budget_tokens() ? absl::StrCat(estimate.budget_tokens()) : "all",
                          human_bytes(static_cast<double>(estimate.peak_bytes())),
                          human_bytes(static_cast<double>(estimate.steady_bytes())),
                          human_bytes(static_cast<double>(estimate.full_bytes())), share_saved(estimate),
                          fits_word(estimate), smallest_budget(estimate)});
  }
  return text_table(table);
}

std::optional<size_t> best_fitting(const std::vector<EstimateRow>& rows) {
  const auto rank = [](const v1::EstimateCacheResponse& estimate) {
    return std::tuple(estimate.admissible_now(), keeps_all(estimate), estimate.budget_tokens(),
                      -static_cast<double>(estimate.peak_bytes()));
  };
  std::optional<size_t> best;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (!rows[i].estimate.admissible_ever()) continue;
    if (!best || rank(rows[i].estimate) > rank(rows[*best].estimate)) best = i;
  }
  return best;
}

std::string estimate_verdict(const std::vector<EstimateRow>& rows, std::optional<size_t> best) {
  if (best) {
    const EstimateRow& row = rows[*best];
    const std::string lead = rows.size() > 1 ? absl::StrCat(row.name, " keeps most of what fits. ") : "";
    return absl::StrCat(lead, row.estimate.admissible_now() ? "It would start now:"
                                                            : "It would wait until other requests give memory back:");
  }
  const EstimateRow* least = nullptr;
  for (const EstimateRow& row : rows) {
    const uint64_t bytes = row.estimate.smallest_budget_bytes();
    if (bytes > 0 && (!least || bytes < least->estimate.smallest_budget_bytes())) least = &row;
  }
  std::string text = rows.size() > 1 ? "None of them ever fits." : "It never fits.";
  if (!least) return text + " Try a policy with a budget: 'pyramidkv policies' lists them.";
  absl::StrAppend(&text, " The smallest cache for this prompt is ",
                  size_word_above(least->estimate.smallest_budget_bytes()), ", of ", policy_name(least->policy), ": ");
  const uint32_t largest = least->estimate.largest_budget_tokens();
  if (least->smallest_bytes_fit && (largest == 0 || least->policy.budget().has_bytes())) {
    return absl::StrCat(text, "--budget ", size_word_above(least->estimate.smallest_budget_bytes()), " would fit.");
  }
  if (largest > 0) {
    return absl::StrCat(text, "--budget ", least->estimate.smallest_budget_tokens(), " to ", largest, " would fit.");
  }
  return absl::StrCat(text, "the server's cache.pool_bytes has to be larger, or the prompt shorter.");
}

}  // namespace pkv::client
