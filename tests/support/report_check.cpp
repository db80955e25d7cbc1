// The rules of docs/policies.md as one pass over a report.
#include "tests/support/report_check.h"

#include <algorithm>
#include <functional>

#include "absl/strings/str_cat.h"

namespace pkv::test {
namespace {

class ReportCheck {
 public:
  ReportCheck(const ReportCase& reported, const CacheReport& report)
      : case_(reported),
        report_(report),
        layout_{reported.spec.kv_dtype, reported.shape.head_dim, reported.page_bytes} {}

  std::vector<std::string> run() {
    expect(report_.layers.size() == static_cast<size_t>(case_.shape.layers), "an outcome for every layer");
    for (size_t layer = 0; layer < report_.layers.size(); ++layer) {
      check_layer(layer);
      for (size_t head = 0; head < static_cast<size_t>(case_.shape.kv_heads); ++head) check_lane(layer, head);
    }
    check_bytes();
    const auto heads = static_cast<size_t>(case_.shape.kv_heads);
    const std::vector<int32_t>& limits = case_.promised.own.plan.lane_limits;
    bool alike = case_.own_division && !sharing_;  // the lanes of a layer
    for (size_t lane = 0; lane < limits.size(); ++lane) alike = alike && limits[lane] == limits[lane - lane % heads];
    if (!alike) check_sums(0, heads);
    for (size_t head = 0; head < heads && alike; ++head) check_sums(head, head + 1);
    return std::move(violations_);
  }

 private:
  bool total() const { return case_.spec.budget.scope == BudgetScope::kTotal; }
  bool by_recall() const { return case_.spec.budget.kind == BudgetKind::kMinRecall; }

  void expect(bool holds, const std::string& what) {
    if (!holds) violations_.push_back(what);
  }

  // Positions of a lane of `length` entries that have to be there when the text has `tokens`, ascending.
  std::vector<int32_t> always_kept(int32_t tokens, size_t length) const {
    std::vector<int32_t> positions;
    const auto add = [&](int32_t begin, int32_t end) {
      for (int32_t position = begin; position < end; ++position) positions.push_back(position);
    };
    const int32_t sinks = std::min(sinks_of(case_.spec), case_.prompt_tokens);
    add(0, sinks);
    for (const TokenSpan& pin : case_.spec.pins) add(pin.begin, pin.end);
    int32_t window = window_of(case_.spec, case_.promised.own.plan.budget_tokens);
    // All that streaming_llm keeps beside its sinks are the newest.
    if (case_.spec.kind == PolicyKind::kStreamingLlm && case_.spec.pins.empty()) {
      window = static_cast<int32_t>(length) - sinks;
    }
    add(std::max(0, tokens - window), tokens);
    std::sort(positions.begin(), positions.end());
    positions.erase(std::unique(positions.begin(), positions.end()), positions.end());
    return positions;
  }

  void check_positions(const std::vector<int32_t>& positions, int32_t tokens, const std::string& where) {
    expect(!positions.empty(), absl::StrCat(where, ": holds nothing"));
    if (positions.empty()) return;
    const bool ascending =
        std::adjacent_find(positions.begin(), positions.end(), std::greater_equal<>()) == positions.end();
    expect(ascending, absl::StrCat(where, ": positions do not ascend"));
    expect(positions.front() >= 0 && positions.back() < tokens, absl::StrCat(where, ": a position beyond the text"));
    const std::vector<int32_t> always = always_kept(tokens, positions.size());
    expect(std::includes(positions.begin(), positions.end(), always.begin(), always.end()),
           absl::StrCat(where, ": window, sinks or pins are gone"));
  }

  void check_lane(size_t layer, size_t head) {
    const std::string where = absl::StrCat("layer ", layer, " head ", head);
    const LayerOutcome& outcome = report_.layers[layer];
    const CachePlan& plan = case_.promised.own.plan;
    const size_t lane = layer * static_cast<size_t>(case_.shape.kv_heads) + head;
    const bool shared = plan.shares(static_cast<int32_t>(layer)) || plan.shares_model();
    const int32_t budget = plan.lane_budgets[lane], kept = outcome.kept[head];
    expect(by_recall() || shared ? kept <= budget : kept == budget,
           absl::StrCat(where, ": ", kept, " entries for a budget of ", budget));
    expect(!shared || kept >= plan.smallest_lanes[layer], absl::StrCat(where, ": ", kept, " entries are too few"));
    expect(outcome.kept_positions[head].size() == static_cast<size_t>(kept), absl::StrCat(where, ": positions kept"));
    check_positions(outcome.kept_positions[head], case_.prompt_tokens, absl::StrCat(where, " after the prompt"));
    const std::vector<int32_t>& last = outcome.final_positions[head];
    const int32_t limit = shared && total() ? kept : plan.lane_limits[lane];
    expect(last.size() <= static_cast<size_t>(limit),
           absl::StrCat(where, ": ", last.size(), " entries at the end, beyond ", limit));
    check_positions(last, report_.logical_tokens, absl::StrCat(where, " at the end"));
    held_ += last.size() * static_cast<uint64_t>(layout_.entry_bytes());
    pages_ += static_cast<uint64_t>(layout_.pages_for(static_cast<int32_t>(last.size())));
    evicted_ += static_cast<uint64_t>(report_.logical_tokens) - last.size();
    if (outcome.recall.empty()) return;
    const double recall = outcome.recall[head];
    expect(recall > 0 && recall <= 1 + 1e-9, absl::StrCat(where, ": a recall of ", recall));
    if (by_recall() && !case_.spec.budget.allow_shortfall) {
      const double wanted = static_cast<double>(case_.spec.budget.min_recall_millionths) / kMillion;
      expect(recall >= wanted, absl::StrCat(where, ": a recall of ", recall, " instead of ", wanted));
    }
  }

  // What the lanes of a layer share they have among them.
  void check_layer(size_t layer) {
    sharing_ |= case_.promised.own.plan.shares_model();
    if (!case_.promised.own.plan.shares(static_cast<int32_t>(layer))) return;
    sharing_ = true;
    int64_t kept = 0;
    for (const int32_t entries : report_.layers[layer].kept) kept += entries;
    const int64_t shared = case_.promised.own.plan.shared_budgets[layer];
    expect(kept == shared, absl::StrCat("layer ", layer, ": ", kept, " entries of ", shared));
  }

  void check_bytes() {
    const CacheBytes& bytes = report_.bytes;
    const Contract& promised = case_.promised;
    const uint64_t now = bytes.allocated + bytes.auxiliary;
    expect(bytes.held == held_, absl::StrCat("held ", bytes.held, " bytes, entries have ", held_));
    expect(bytes.allocated == pages_ * static_cast<uint64_t>(case_.page_bytes),
           absl::StrCat("allocated ", bytes.allocated, " bytes, lanes have ", pages_, " pages"));
    expect(report_.evicted_entries == evicted_, absl::StrCat("evicted ", report_.evicted_entries, ", not ", evicted_));
    expect(bytes.peak <= promised.peak_bytes, absl::StrCat("peak ", bytes.peak, " above ", promised.peak_bytes));
    expect(now <= promised.steady_bytes, absl::StrCat("steady ", now, " above ", promised.steady_bytes));
    if (case_.whole_answer && !by_recall() && !sharing_) {
      expect(now == promised.steady_bytes, absl::StrCat("steady ", now, " bytes, promised ", promised.steady_bytes));
    }
    const Budget& budget = case_.spec.budget;
    const uint64_t limit = budget.kind == BudgetKind::kBytes ? budget.bytes : budget.max_bytes;
    if (limit > 0) expect(bytes.peak <= limit, absl::StrCat("peak ", bytes.peak, " above the budget of ", limit));
    if (!by_recall()) expect(report_.budget_tokens == promised.own.plan.budget_tokens, "another budget than promised");
  }

  // Heads [first, end) of all layers: what a budget bounds. FACTORY has a table of its own, which the lane budgets are.
  void check_sums(size_t first, size_t end) {
    const PolicySpec& spec = case_.spec;
    if (spec.kind == PolicyKind::kFull || by_recall() || !case_.promised.own.policy->spends_exactly()) return;
    const std::vector<int32_t>& limits = case_.promised.own.plan.lane_limits;
    const bool even =
        !sharing_ && std::adjacent_find(limits.begin(), limits.end(), std::not_equal_to<>()) == limits.end();
    const int64_t lanes = case_.shape.layers * static_cast<int64_t>(end - first);
    const int64_t budget = lanes * case_.promised.own.plan.budget_tokens;
    int64_t after_prompt = 0, at_the_end = 0;
    for (const LayerOutcome& layer : report_.layers) {
      for (size_t head = first; head < end; ++head) {
        const auto last = static_cast<int64_t>(layer.final_positions[head].size());
        after_prompt += layer.kept[head];
        at_the_end += last;
        const bool beyond = total() && even && last > case_.promised.own.plan.budget_tokens;
        expect(!beyond, "a lane beyond the budget");
      }
    }
    expect(after_prompt <= budget, "more entries after the prompt than the budget");
    if (!total()) expect(after_prompt == std::min(budget, lanes * case_.prompt_tokens), "the budget is not spent");
    if (total()) expect(at_the_end <= budget, "more entries at the end than the budget");
  }

  const ReportCase& case_;
  const CacheReport& report_;
  PageLayout layout_;
  bool sharing_ = false;  // lanes of some layer
  uint64_t held_ = 0, pages_ = 0, evicted_ = 0;
  std::vector<std::string> violations_;
};

}  // namespace

int32_t window_of(const PolicySpec& spec, int32_t budget) {
  switch (spec.kind) {
    case PolicyKind::kFull:
      return 0;
    case PolicyKind::kStreamingLlm:
    case PolicyKind::kTova:
      return 1;
    case PolicyKind::kH2o:
      return spec.params.recent_tokens.value_or(std::max(1, budget / 2));
    default:
      return spec.params.window_tokens;
  }
}

int32_t sinks_of(const PolicySpec& spec) {
  const bool has_sinks =
      spec.kind == PolicyKind::kStreamingLlm || spec.kind == PolicyKind::kRandom || spec.kind == PolicyKind::kFunnel;
  return has_sinks ? spec.params.sink_tokens : 0;
}

std::vector<std::string> report_violations(const ReportCase& reported, const CacheReport& report) {
  return ReportCheck(reported, report).run();
}

}  // namespace pkv::test
