#include "server/api/conversion.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "server/api/policy_catalog.h"
#include "server/api/times.h"
#include "server/engine/cache_report.h"
#include "server/policy/registry.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

void set_recall(std::span<const double> recall, pb::Recall& out) {
  out.set_mean(std::accumulate(recall.begin(), recall.end(), 0.0) / static_cast<double>(recall.size()));
  out.set_min(*std::min_element(recall.begin(), recall.end()));
}

void set_layer(const LayerOutcome& layer, bool compressed, bool positions, pb::LayerCache& out) {
  out.set_budget_tokens(static_cast<uint32_t>(layer.budget_tokens));
  if (!layer.kept.empty()) set_kept(layer.kept, out);
  if (const std::vector<double> recall = lane_recall(layer, compressed); !recall.empty())
    set_recall(recall, *out.mutable_recall());
  if (!positions) return;
  for (size_t head = 0; head < layer.kept_positions.size(); ++head) {
    pb::KeptPositions& kept = *out.add_heads();
    kept.set_kv_head(static_cast<uint32_t>(head));
    kept.mutable_positions()->Add(layer.kept_positions[head].begin(), layer.kept_positions[head].end());
    if (head >= layer.final_positions.size()) continue;
    kept.mutable_final_positions()->Add(layer.final_positions[head].begin(), layer.final_positions[head].end());
  }
}

}  // namespace

void set_kept(std::span<const int32_t> kept, pb::LayerCache& out) {
  const auto [least, most] = std::minmax_element(kept.begin(), kept.end());
  out.set_kept_min(static_cast<uint32_t>(*least));
  out.set_kept_max(static_cast<uint32_t>(*most));
  out.set_kept_mean(std::accumulate(kept.begin(), kept.end(), 0.0) / static_cast<double>(kept.size()));
}

void set_report(const CacheReport& report, const PolicySpec& spec, ReportDetail detail, pb::CacheReport& out) {
  *out.mutable_effective_policy() = to_proto(spec);
  out.set_policy_name(std::string(policy_row(spec.kind).name));
  out.set_budget_tokens(static_cast<uint32_t>(report.budget_tokens));
  out.set_logical_tokens(static_cast<uint32_t>(report.logical_tokens));
  out.set_full_bytes(report.full_bytes);
  out.set_held_bytes(report.bytes.held);
  out.set_allocated_bytes(report.bytes.allocated);
  out.set_auxiliary_bytes(report.bytes.auxiliary);
  out.set_peak_bytes(report.bytes.peak);
  out.set_saved_bytes(report.saved_bytes);
  out.set_evicted_entries(report.evicted_entries);
  out.set_compressions(report.compressions);
  out.set_compressed(report.compressed);
  out.set_not_compressed_reason(report.not_compressed_reason);
  out.set_workspace_bytes(report.workspace_bytes);
  out.set_held_byte_seconds(report.byte_seconds.held);
  out.set_full_byte_seconds(report.byte_seconds.full);
  if (report.prefill) {
    pb::PrefillReport& prefill = *out.mutable_prefill();
    prefill.set_attended_share(report.prefill->attended_share);
    prefill.set_lost_mean(report.prefill->lost_mean);
    prefill.set_lost_max(report.prefill->lost_max);
    prefill.set_measured_rows(static_cast<uint32_t>(report.prefill->measured_rows));
  }
  if (const std::vector<double> recall = lane_recall(report); !recall.empty())
    set_recall(recall, *out.mutable_recall());
  if (detail < ReportDetail::kPerLayer) return;
  for (size_t i = 0; i < report.layers.size(); ++i) {
    pb::LayerCache& layer = *out.add_layers();
    layer.set_layer(static_cast<uint32_t>(i));
    set_layer(report.layers[i], report.compressed, detail == ReportDetail::kPositions, layer);
  }
}

void set_timings(const RequestResult::Timings& timings, pb::Timings& out) {
  set_duration(timings.queue, *out.mutable_queue());
  set_duration(timings.prefill, *out.mutable_prefill());
  set_duration(timings.compress, *out.mutable_compress());
  set_duration(timings.decode, *out.mutable_decode());
  set_duration(timings.time_to_first_token, *out.mutable_time_to_first_token());
  set_duration(timings.total, *out.mutable_total());
}

void set_usage(const RequestResult& result, pb::Usage& out) {
  out.set_prompt_tokens(static_cast<uint32_t>(result.prompt_tokens));
  out.set_completion_tokens(static_cast<uint32_t>(result.completion_tokens));
  out.set_total_tokens(static_cast<uint32_t>(result.prompt_tokens + result.completion_tokens));
}

pb::FinishReason to_proto(FinishReason reason) {
  return reason == FinishReason::kStop ? pb::FINISH_REASON_STOP : pb::FINISH_REASON_LENGTH;
}

void add_logprobs(std::span<const TokenLogprob> tokens, const Tokenizer& tokenizer,
                  google::protobuf::RepeatedPtrField<pb::TokenLogprob>& out) {
  const auto set = [&](TokenId id, float logprob, pb::TokenLogprob& message) {
    message.set_token_id(static_cast<uint32_t>(id));
    message.set_token(std::string(tokenizer.token_bytes(id)));
    message.set_logprob(logprob);
  };
  for (const TokenLogprob& token : tokens) {
    pb::TokenLogprob& message = *out.Add();
    set(token.id, token.logprob, message);
    for (const auto& [id, logprob] : token.top) set(id, logprob, *message.add_top());
  }
}

}  // namespace pkv
