// The prompts go through an engine whose policy remembers its scores.
#include "server/calibration.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "server/engine/engine.h"
#include "server/policy/registry.h"

namespace pkv {
namespace {

// Scores of one prompt's entries before the window, lane after lane.
using LaneScores = std::vector<std::vector<float>>;

PolicySpec scoring_spec() {
  const PolicyRow& row = policy_row(PolicyKind::kFunnel);
  PolicySpec spec{.kind = row.kind, .params = row.defaults};
  spec.params.funnel_allocation = FunnelAllocation::kGlobal;
  spec.budget = {.kind = BudgetKind::kTokens, .tokens = 1 + spec.params.window_tokens + spec.params.sink_tokens};
  return spec;
}

// funnel's scores, copied to the host layer by layer. What it keeps does not matter: a layer's attention was computed
// when it is cut.
class RecordingPolicy final : public CachePolicy {
 public:
  RecordingPolicy(std::unique_ptr<CachePolicy> scores, LaneScores& recorded)
      : scores_(std::move(scores)), recorded_(recorded) {}

  std::vector<int32_t> lane_budgets(int32_t budget, int32_t /*tokens*/, const LaneGrid& grid) const override {
    return std::vector<int32_t>(grid.lanes(), budget);
  }
  int32_t sink_tokens() const override { return scores_->sink_tokens(); }
  int32_t window_tokens(int32_t budget) const override { return scores_->window_tokens(budget); }
  Observation observation() const override { return scores_->observation(); }
  std::vector<ObservationRow> observe(int32_t prompt_tokens) const override { return scores_->observe(prompt_tokens); }
  bool weighs_values() const override { return scores_->weighs_values(); }
  void score(const LayerView& layer, const ScoreBuffers& buffers, ScoreSteps& steps) const override {
    scores_->score(layer, buffers, steps);
    steps.add(layer.entries_work(), [this, buffers](const LayerView& now) {
      const int32_t past = now.tokens - scores_->window_tokens(0);
      for (int32_t head = 0; head < now.kv_heads; ++head) {
        std::vector<float> lane(static_cast<size_t>(past));
        now.backend->fetch({lane.data(), buffers.scores.slice_rows(head, 1).slice_cols(0, past)});
        recorded_.push_back(std::move(lane));
      }
    });
  }
  DecodeRule decode_rule() const override { return scores_->decode_rule(); }

 private:
  std::unique_ptr<CachePolicy> scores_;
  LaneScores& recorded_;
};

// Waits for the end of a request.
class EndSink final : public TokenSink {
 public:
  void on_start() override {}
  void on_progress(double) override {}
  void on_prompt_logprobs(std::span<const TokenLogprob>) override {}
  bool on_token(const TokenLogprob&) override { return true; }
  void on_end(RequestResult) override { end(absl::OkStatus()); }
  void on_error(const absl::Status& status) override { end(status); }

  absl::Status wait() {
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [this] { return status_.has_value(); });
    return *status_;
  }

 private:
  void end(const absl::Status& status) {
    const std::lock_guard lock(mutex_);
    status_ = status;
    ended_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable ended_;
  std::optional<absl::Status> status_;
};

// NaN has no place in an order. Pooling makes -infinity of it.
absl::Status check_finite(const LaneScores& scores, int32_t kv_heads) {
  for (size_t lane = 0; lane < scores.size(); ++lane) {
    const auto is_number = [](float score) { return std::isfinite(score); };
    if (std::all_of(scores[lane].begin(), scores[lane].end(), is_number)) continue;
    const auto heads = static_cast<size_t>(kv_heads);
    return absl::DataLossError(absl::StrCat("layer ", lane / heads, ", KV head ", lane % heads,
                                            ": scores are not numbers (NaN or infinite): weights in the model's file, "
                                            "or the device's memory, are not what they were"));
  }
  return absl::OkStatus();
}

// Lanes of all entries that may be kept or not, the best first; equal scores by lane, then by position.
std::vector<size_t> ranked_lanes(const LaneScores& scores, int32_t sinks) {
  std::vector<std::pair<float, size_t>> entries;
  for (size_t lane = 0; lane < scores.size(); ++lane) {
    for (size_t slot = static_cast<size_t>(sinks); slot < scores[lane].size(); ++slot) {
      entries.emplace_back(scores[lane][slot], lane);
    }
  }
  std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<size_t> lanes;
  for (const auto& [score, lane] : entries) lanes.push_back(lane);
  return lanes;
}

}  // namespace

absl::StatusOr<LaneTable> calibrate(const Model& model, std::span<const std::vector<TokenId>> prompts,
                                    const CalibrationOptions& options) {
  const PolicySpec spec = scoring_spec();
  const int64_t always = int64_t{spec.params.window_tokens} + spec.params.sink_tokens;
  LaneScores scores;
  EngineOptions engine_options;
  size_t longest = 0;
  for (const std::vector<TokenId>& prompt : prompts) longest = std::max(longest, prompt.size());
  // A full cache, and a page for every lane, are more than one prompt at a time needs. Unused memory costs nothing.
  engine_options.pool_bytes = (uint64_t{64} << 20) + longest * model.shape().kv_bytes_per_token(KvDtype::kF16);
  engine_options.make_policy = [&scores](const PolicySpec& wanted) -> absl::StatusOr<std::unique_ptr<CachePolicy>> {
    return std::make_unique<RecordingPolicy>(policy_row(wanted.kind).make(wanted), scores);
  };
  PKV_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, Engine::create(model, engine_options));

  const ModelShape& shape = model.shape();
  LaneTable table{.layers = shape.layers, .kv_heads = shape.kv_heads};
  const size_t lanes = static_cast<size_t>(shape.layers) * static_cast<size_t>(shape.kv_heads);
  for (const double keep : options.keeps) table.anchors.push_back({keep, std::vector<double>(lanes, 0.0)});
  for (size_t i = 0; i < prompts.size(); ++i) {
    auto request = std::make_shared<Request>();
    request->prompt = prompts[i];
    request->policy = spec;
    request->sampling.max_tokens = 0;
    scores.clear();
    PKV_ASSIGN_OR_RETURN(Prepared prepared, engine->prepare(std::move(request)));
    const auto sink = std::make_shared<EndSink>();
    PKV_RETURN_IF_ERROR(engine->submit(std::move(prepared), {}, sink));
    PKV_RETURN_IF_ERROR(sink->wait());
    PKV_RETURN_IF_ERROR(check_finite(scores, shape.kv_heads));
    const std::vector<size_t> ranked = ranked_lanes(scores, spec.params.sink_tokens);
    for (LaneTable::Anchor& anchor : table.anchors) {
      const int64_t beside = std::llround(anchor.keep * static_cast<double>(prompts[i].size())) - always;
      if (beside < 1) {
        return absl::InvalidArgumentError(
            absl::StrCat("a prompt of ", prompts[i].size(), " tokens is too short for a share of ", anchor.keep));
      }
      const size_t kept = std::min(ranked.size(), static_cast<size_t>(beside) * lanes);
      const double part = 1.0 / static_cast<double>(beside) / static_cast<double>(prompts.size());
      for (size_t rank = 0; rank < kept; ++rank) anchor.shares[ranked[rank]] += part;
    }
    options.progress(i + 1);
  }
  return table;
}

}  // namespace pkv
