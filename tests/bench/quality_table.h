// What pkv-quality measures, averaged over texts, as tables and as checks.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "server/engine/request_result.h"

namespace pkv {

// One policy at one budget: on one text, or the mean over texts.
struct QualityFigures {
  double kept_share = 0;                // entries after the prompt / (lanes x prompt tokens)
  double peak_bytes = 0;                // allocated + auxiliary, largest at any instant
  double steady_bytes = 0;              // likewise, when the answer is done
  double recall_mean = 0;               // over lanes; only where attention is observed
  double recall_min = 1;                // least of all lanes, and of all texts
  double kl_mean = 0;                   // KL(full || policy) in nats, over places of the answer after the first
  double top1_agreement = 0;            // over the same places
  double identical_share = 0;           // of answers that are those of full
  double tokens_before_divergence = 0;  // of its own answer; all of them where it is identical

  void add(const QualityFigures& other, double weight);
};

// `lanes` = layers x KV heads.
QualityFigures figures_of(const PolicyComparison& comparison, int32_t prompt_tokens, int32_t lanes);

struct QualityRow {
  std::string policy;
  bool observes_attention = false;
  std::string budget;
  QualityFigures figures;
};

// The negative control: streaming_llm at one budget without the first tokens, against the same with them.
struct NegativeControl {
  std::string budget;
  double kl_with = 0, kl_without = 0;
  double top1_with = 0, top1_without = 0;
  double ratio() const { return kl_without / kl_with; }
};

nlohmann::json to_json(const QualityRow& row, const std::string& text);
nlohmann::json to_json(const NegativeControl& control);
void print_table(const std::vector<QualityRow>& rows);
void print_table(const std::vector<NegativeControl>& controls);

// What is not as it should be: recall, where there is one, has to fall whenever fewer entries are kept, and KL has to
// be larger with the fewest than with the most; without the first tokens KL has to be more than twice as large. Empty:
// all is well.
std::vector<std::string> quality_violations(const std::vector<QualityRow>& rows,
                                            const std::vector<NegativeControl>& controls);

}  // namespace pkv
