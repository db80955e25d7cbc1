// Prefill units, and decode steps of sequences by themselves.
#include "server/engine/stepper.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "server/engine/sampler.h"

namespace pkv {
namespace {

// Rows of the output head computed at once: nothing of size prompt x vocabulary exists.
constexpr int32_t kLogitsRows = 64;

}  // namespace

absl::StatusOr<std::unique_ptr<Stepper>> Stepper::create(const Model& model, const EngineOptions& options) {
  std::unique_ptr<Stepper> stepper(new Stepper(model, options));
  PKV_RETURN_IF_ERROR(stepper->allocate());
  return stepper;
}

absl::Status Stepper::allocate() {
  const ModelShape& shape = model_.shape();
  Backend& backend = model_.backend();
  PKV_ASSIGN_OR_RETURN(cache_, KvCache::create(backend,
                                               {.layers = shape.layers,
                                                .kv_heads = shape.kv_heads,
                                                .head_dim = shape.head_dim,
                                                .page_bytes = options_.page_bytes},
                                               options_.pool_bytes));
  PKV_ASSIGN_OR_RETURN(compressor_scratch_,
                       CompressorScratch::create(backend, shape.q_heads, cache_->geometry(), shape.max_positions));
  PKV_ASSIGN_OR_RETURN(scratch_, model_.make_scratch(options_.step_tokens));
  PKV_ASSIGN_OR_RETURN(auto head, OutputHead::create(model_, std::min(kLogitsRows, options_.step_tokens)));
  head_.emplace(std::move(head));
  PKV_ASSIGN_OR_RETURN(auto step, DecodeStep::create({.model = model_,
                                                      .cache = *cache_,
                                                      .scratch = scratch_,
                                                      .compressor_scratch = *compressor_scratch_,
                                                      .head = *head_},
                                                     std::min(options_.step_tokens, options_.max_running)));
  decode_step_.emplace(std::move(step));
  return absl::OkStatus();
}

uint64_t Stepper::shared_workspace_bytes() const {
  return scratch_.bytes() + compressor_scratch_->bytes() + head_->bytes() + decode_step_->bytes();
}

// ---- prefill

CompressorOptions Stepper::compressor_options(const Sequence& sequence, const PolicySpec& spec) const {
  return {.geometry = cache_->geometry(),
          .q_heads = model_.shape().q_heads,
          .prompt_tokens = sequence.prompt_tokens(),
          .budget = spec.budget,
          .record_positions = sequence.request().record_positions};
}

SequenceLanes::Options Stepper::lane_options(const Sequence& sequence, const PolicySpec& spec,
                                             const Contract::Terms& terms) {
  return {.model = model_,
          .cache = *cache_,
          .policy = *terms.policy,
          .spec = spec,
          .plan = terms.plan,
          .prompt_tokens = sequence.prompt_tokens()};
}

absl::Status Stepper::start_prefill(Sequence& sequence) {
  const PolicySpec& spec = sequence.request().policy;
  const Contract::Terms& terms = sequence.contract().own;
  PKV_ASSIGN_OR_RETURN(auto residual,
                       model_.backend().allocate(sequence.prompt_tokens(), model_.shape().width, DType::kF32));
  PKV_ASSIGN_OR_RETURN(auto compressor, Compressor::create(model_.backend(), *terms.policy, terms.plan,
                                                           compressor_options(sequence, spec)));
  PKV_ASSIGN_OR_RETURN(auto lanes, SequenceLanes::open(lane_options(sequence, spec, terms)));
  sequence.start_prefill({.residual = std::move(residual), .compressor = std::move(compressor)}, std::move(lanes),
                         options_.clock());
  PKV_ASSIGN_OR_RETURN(auto comparison, start_comparison(sequence));
  sequence.set_comparison(std::move(comparison));
  return absl::OkStatus();
}

absl::StatusOr<int64_t> Stepper::prefill_unit(Sequence& sequence) {
  const Sequence::Prefill& prefill = *sequence.prefill();
  PKV_ASSIGN_OR_RETURN(const int64_t work,
                       prefill.layer < model_.shape().layers ? layer_unit(sequence) : scoring_unit(sequence));
  const int32_t stages = model_.shape().layers + (scores_prompt(sequence) ? 1 : 0);
  if (prefill.layer == stages) PKV_RETURN_IF_ERROR(finish_prompt(sequence));
  return work;
}

absl::StatusOr<int64_t> Stepper::layer_unit(Sequence& sequence) {
  Sequence::Prefill& prefill = *sequence.prefill();
  const int32_t tokens = sequence.prompt_tokens(), layer = prefill.layer;
  const int32_t rows = std::min(options_.prefill_chunk_rows, tokens - prefill.row);
  if (absl::Status status = cache_->append_slots(sequence.lanes()->id(), layer, rows); !status.ok()) {
    return no_slots(status);
  }
  plan_prefill(sequence, rows);
  const TensorView x = prefill.residual.view().slice_rows(prefill.row, rows);
  if (layer == 0) model_.embed(plan_.token_ids.data(), x);

  // Of the last layer only the rows that the output head reads are wanted.
  const bool last_chunk = prefill.row + rows == tokens;
  const bool all_rows = layer + 1 < model_.shape().layers || scores_prompt(sequence);
  const int32_t outputs = all_rows ? rows : (last_chunk ? 1 : 0);
  model_.run_layer(plan_, layer, x, scratch_, outputs);
  rows_run_ += rows;
  observe_rows(sequence, rows);

  prefill.row += rows;
  if (last_chunk) {
    PKV_RETURN_IF_ERROR(finish_layer(sequence));
  }
  return rows;
}

void Stepper::observe_rows(Sequence& sequence, int32_t rows) {
  const TensorView q = scratch_.q.rows(rows), k = scratch_.k.rows(rows), v = scratch_.v.rows(rows);
  const Sequence::Prefill& prefill = *sequence.prefill();
  const KvView kv = plan_.view(prefill.layer);
  prefill.compressor->observe(q, kv, prefill.row);
  sequence.lanes()->capture(prefill.layer, k, v, prefill.row);
  if (sequence.comparison() == nullptr) return;
  for (Rival& rival : sequence.comparison()->rivals) {
    rival.compressor->observe(q, kv, prefill.row);
    rival.taught->capture(prefill.layer, k, v, prefill.row);
    rival.own->capture(prefill.layer, k, v, prefill.row);
  }
}

void Stepper::plan_prefill(const Sequence& sequence, int32_t rows) {
  const Sequence::Prefill& prefill = *sequence.prefill();
  plan_.phase = Phase::kPrefill;
  const auto first = sequence.request().prompt.begin() + prefill.row;
  plan_.token_ids.assign(first, first + rows);
  plan_.positions.resize(static_cast<size_t>(rows));
  for (int32_t i = 0; i < rows; ++i) plan_.positions[static_cast<size_t>(i)] = prefill.row + i;
  plan_.angles = plan_.positions;
  plan_.spans.assign(1, {.first_row = 0, .rows = rows, .first_lane = 0});
  plan_.first_layer = prefill.layer;
  plan_.layer_lanes.resize(1);
  plan_.layer_lanes[0].clear();
  plan_.page_ids.clear();
  plan_.cache = cache_->base_view();
  cache_->view(sequence.lanes()->id(), prefill.layer, rows, plan_.layer_lanes[0], plan_.page_ids);
}

absl::Status Stepper::finish_layer(Sequence& sequence) {
  model_.backend().sync();  // so that the time belongs to the cut alone
  const absl::Time start = options_.clock();
  Sequence::Prefill& prefill = *sequence.prefill();
  PKV_RETURN_IF_ERROR(cut_layer(sequence, prefill.layer));
  model_.backend().sync();
  sequence.add_compress_time(options_.clock() - start);
  ++prefill.layer;
  prefill.row = 0;
  return absl::OkStatus();
}

// The rivals take their part of the layer while it is whole; then the sequence's own lanes are cut.
absl::Status Stepper::cut_layer(Sequence& sequence, int32_t layer) {
  const SequenceId from = sequence.lanes()->id();
  const auto cut = [&](Compressor& compressor, std::span<const Compressor::Target> targets) {
    return compressor.finish_layer(
        {.cache = *cache_, .from = from, .targets = targets, .scratch = *compressor_scratch_}, layer);
  };
  if (sequence.comparison() != nullptr) {
    for (Rival& rival : sequence.comparison()->rivals) {
      const Compressor::Target targets[] = {{rival.taught->id(), rival.taught->evictor()},
                                            {rival.own->id(), rival.own->evictor()}};
      PKV_ASSIGN_OR_RETURN(LayerOutcome outcome, cut(*rival.compressor, targets));
      rival.outcomes.push_back(std::move(outcome));
    }
  }
  const Compressor::Target own{from, sequence.lanes()->evictor()};
  PKV_ASSIGN_OR_RETURN(LayerOutcome outcome, cut(*sequence.prefill()->compressor, {&own, 1}));
  sequence.add_outcome(std::move(outcome));
  return absl::OkStatus();
}

absl::StatusOr<int64_t> Stepper::scoring_unit(Sequence& sequence) {
  Sequence::Prefill& prefill = *sequence.prefill();
  const std::vector<TokenId>& prompt = sequence.request().prompt;
  const int32_t first = prefill.row;
  const auto rows = std::min(head_->rows(), sequence.prompt_tokens() - first);
  head_->compute(prefill.residual.view().slice_rows(first, rows), Phase::kPrefill, /*with_log_sum_exp=*/true);
  PKV_RETURN_IF_ERROR(model_.backend().status());
  rows_run_ += rows;

  std::vector<TokenLogprob> tile;
  if (first == 0) tile.push_back({.id = prompt[0]});  // nothing precedes it
  for (int32_t i = 0; i < rows && first + i + 1 < sequence.prompt_tokens(); ++i) {
    tile.push_back(token_logprob(head_->logits(i), head_->log_sum_exp(i), prompt[static_cast<size_t>(first + i + 1)],
                                 sequence.request().top_logprobs));
  }
  if (!tile.empty()) sequence.sink().on_prompt_logprobs(tile);
  prefill.row += rows;
  if (prefill.row == sequence.prompt_tokens()) ++prefill.layer;
  return rows * head_work_layers(model_.shape());
}

// The first token comes from the whole prompt's own attention; what was kept counts from the second on.
absl::Status Stepper::finish_prompt(Sequence& sequence) {
  if (sequence.request().sampling.max_tokens > 0) {
    const TensorView last = sequence.prefill()->residual.view().slice_rows(sequence.prompt_tokens() - 1, 1);
    head_->compute(last, Phase::kPrefill, sequence.request().logprobs);
    PKV_RETURN_IF_ERROR(model_.backend().status());
    accept(sequence, head_->logits(0), head_->log_sum_exp(0));
  } else {
    sequence.end_without_answer();
  }
  if (Comparison* comparison = sequence.comparison(); comparison != nullptr) {
    comparison->start(sequence.generated().front());
    for (Rival& rival : comparison->rivals) rival.ended = sequence.answered();
  }
  sequence.end_prefill();
  return absl::OkStatus();
}

// ---- decode

absl::Status Stepper::decode(std::span<Sequence* const> sequences) {
  rows_.clear();
  for (const Sequence* sequence : sequences) {
    rows_.push_back({.lanes = sequence->lanes(),
                     .token = sequence->generated().back(),
                     // The place in the whole text, whatever its lanes still hold of it.
                     .position = sequence->prompt_tokens() + sequence->generated_tokens() - 1,
                     .log_sum_exp = sequence->request().logprobs});
  }
  rows_run_ += static_cast<int64_t>(rows_.size());
  return decode_step_->run(
      rows_, [&](size_t row, std::span<float> logits, float lse) { accept(*sequences[row], logits, lse); },
      [&](size_t row, const absl::Status& status) { sequences[row]->fail(no_slots(status)); });
}

absl::Status Stepper::no_slots(const absl::Status& cause) {
  return absl::InternalError(absl::StrCat("the reserved cache memory was not there: ", std::string(cause.message())));
}

// ---- output

TokenLogprob Stepper::choose(Sequence& sequence, std::span<const TokenId> generated, std::span<float> logits,
                             float log_sum_exp) const {
  const Request& request = sequence.request();
  return sample({.logits = logits,
                 .log_sum_exp = log_sum_exp,
                 .prompt = request.prompt,
                 .generated = generated,
                 .forbidden = sequence.forbidden(static_cast<int32_t>(generated.size())),
                 .logprobs = request.logprobs,
                 .top_logprobs = request.top_logprobs},
                request.sampling, sequence.rng());
}

void Stepper::accept(Sequence& sequence, std::span<float> logits, float log_sum_exp) {
  sequence.accept(choose(sequence, sequence.generated(), logits, log_sum_exp), options_.clock());
}

}  // namespace pkv
