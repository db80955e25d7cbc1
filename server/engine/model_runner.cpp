// Prefill units, and decode steps of sequences by themselves.
#include "server/engine/model_runner.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "server/engine/next_token.h"

namespace pkv {
namespace {

// Rows of the output head computed at once: nothing of size prompt x vocabulary exists.
constexpr int32_t kLogitsRows = 64;

}  // namespace

absl::StatusOr<std::unique_ptr<ModelRunner>> ModelRunner::create(const Model& model, const EngineOptions& options) {
  std::unique_ptr<ModelRunner> runner(new ModelRunner(model, options));
  PKV_RETURN_IF_ERROR(runner->allocate());
  return runner;
}

absl::Status ModelRunner::allocate() {
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
  const int32_t tile_rows = std::min(kLogitsRows, options_.step_tokens);
  const int32_t decode_rows = std::min(options_.step_tokens, options_.max_running);
  PKV_ASSIGN_OR_RETURN(auto head, OutputHead::create(model_, tile_rows, std::max(tile_rows, decode_rows)));
  head_.emplace(std::move(head));
  PKV_ASSIGN_OR_RETURN(auto step, DecodeStep::create({.model = model_,
                                                      .cache = *cache_,
                                                      .scratch = scratch_,
                                                      .compressor_scratch = *compressor_scratch_,
                                                      .head = *head_},
                                                     decode_rows));
  decode_step_.emplace(std::move(step));
  PKV_ASSIGN_OR_RETURN(prefill_buffer_, StepBuffer::create(*cache_, {.rows = options_.prefill_chunk_rows, .spans = 1}));
  return absl::OkStatus();
}

uint64_t ModelRunner::shared_workspace_bytes() const {
  // Of the page table one place for each page is in the auxiliary bytes of whoever has the page.
  const int32_t places = cache_->page_table().places() - cache_->pool().total();
  const ModelShape& shape = model_.shape();
  const uint64_t scoring = CompressorScratch::bytes(shape.q_heads, cache_->geometry(), shape.max_positions);
  return scratch_.bytes + scoring + head_->bytes() + decode_step_->bytes() + prefill_buffer_->bytes() +
         cache_->between_steps().bytes() + sizeof(int32_t) * static_cast<uint64_t>(places);
}

// ---- prefill

Compressor::Options ModelRunner::compressor_options(const Sequence& sequence, const PolicySpec& spec) const {
  return {.geometry = cache_->geometry(),
          .q_heads = model_.shape().q_heads,
          .prompt_tokens = sequence.prompt_tokens(),
          .budget = spec.budget,
          .most_step_work = step_work_.least(),
          .rope = model_.rope(),
          .value_factors = model_.value_factors()};
}

SequenceLanes::Options ModelRunner::lane_options(const Sequence& sequence, const PolicySpec& spec,
                                                 const Contract::Terms& terms, bool holds_whole_layers) {
  return {.model = model_,
          .cache = *cache_,
          .policy = *terms.policy,
          .spec = spec,
          .plan = terms.plan,
          .prompt_tokens = sequence.prompt_tokens(),
          .holds_whole_layers = holds_whole_layers,
          .most_step_work = step_work_.least()};
}

absl::Status ModelRunner::start_prefill(Sequence& sequence) {
  const PolicySpec& spec = sequence.request().policy;
  const Contract::Terms& terms = sequence.contract().own;
  PKV_ASSIGN_OR_RETURN(auto residual,
                       model_.backend().allocate(sequence.prompt_tokens(), model_.shape().width, DType::kF32));
  PKV_ASSIGN_OR_RETURN(auto compressor, Compressor::create(model_.backend(), *terms.policy, terms.plan,
                                                           compressor_options(sequence, spec)));
  std::unique_ptr<CompressorScratch> scratch;
  if (sequence.contract().scores_layers()) {
    PKV_ASSIGN_OR_RETURN(scratch, CompressorScratch::create(model_.backend(), model_.shape().q_heads,
                                                            cache_->geometry(), sequence.prompt_tokens()));
  }
  std::unique_ptr<SparsePrefill> sparse;
  if (const std::optional<SparseShape>& shape = sequence.contract().sparse) {
    PKV_ASSIGN_OR_RETURN(sparse, SparsePrefill::create(model_.backend(), *shape));
  }
  PKV_ASSIGN_OR_RETURN(auto lanes,
                       SequenceLanes::open(lane_options(sequence, spec, terms, /*holds_whole_layers=*/true)));
  PKV_ASSIGN_OR_RETURN(auto edits, make_edits(sequence));
  sequence.start_prefill({.residual = std::move(residual),
                          .compressor = std::move(compressor),
                          .scratch = std::move(scratch),
                          .sparse = std::move(sparse)},
                         std::move(lanes), std::move(edits), options_.clock());
  PKV_ASSIGN_OR_RETURN(auto comparison, start_comparison(sequence));
  sequence.set_comparison(std::move(comparison));
  return absl::OkStatus();
}

absl::StatusOr<int64_t> ModelRunner::prefill_unit(Sequence& sequence, int64_t most) {
  const Sequence::Prefill& prefill = *sequence.prefill();
  int64_t work = 0;
  if (prefill.layer == model_.shape().layers) {
    PKV_ASSIGN_OR_RETURN(work, scoring_unit(sequence, most));
  } else {
    if (prefill.row < sequence.prompt_tokens()) {
      PKV_ASSIGN_OR_RETURN(work, wants_pattern(sequence) ? pattern_unit(sequence, most) : layer_unit(sequence, most));
    }
    if (prefill.row == sequence.prompt_tokens()) {
      PKV_ASSIGN_OR_RETURN(work, cut_unit(sequence, most, work));
    }
  }
  const int32_t stages = model_.shape().layers + (scores_prompt(sequence) ? 1 : 0);
  if (prefill.layer == stages) PKV_RETURN_IF_ERROR(finish_prompt(sequence));
  return work;
}

absl::StatusOr<int64_t> ModelRunner::layer_unit(Sequence& sequence, int64_t most) {
  Sequence::Prefill& prefill = *sequence.prefill();
  const int32_t tokens = sequence.prompt_tokens(), layer = prefill.layer;
  PromptWork work = sequence.contract().work;
  const int32_t first = prefill.row;
  const bool sparse = prefill.sparse != nullptr && carries_rows(sequence);
  int32_t longest = std::min(options_.prefill_chunk_rows, tokens - first);
  if (sparse) longest = limit_rows(sequence, longest, work);
  const int32_t rows = work.rows_within(most, first, longest);
  absl::Status status = sparse ? absl::OkStatus() : cache_->append_slots(sequence.lanes()->id(), layer, rows);
  if (!status.ok()) return no_slots(status);
  plan_prefill(sequence, first, rows);
  const TensorView x = prefill.residual.view().slice_rows(first, rows);
  if (layer == 0 && !sparse) model_.embed(plan_.token_ids, x);

  // Of the last layer only the rows that the output head reads are wanted.
  const bool last_chunk = first + rows == tokens;
  const int32_t outputs = carries_rows(sequence) ? rows : (last_chunk ? 1 : 0);
  // Whoever observes every row has the log-sum-exps from attention where that is of every row to all that it sees.
  const bool lse = work.observed > 0 && !sparse && layer + 1 < model_.shape().layers;
  model_.run_layer(plan_, layer, x, scratch_,
                   {.outputs = outputs,
                    .keys = !sparse,
                    .lse = lse,
                    .pattern = sparse ? prefill.sparse->pattern() : SparsePattern{}});
  rows_run_ += rows;
  observe_rows(sequence, rows, lse ? scratch_.lse.rows(rows) : TensorView{});
  if (sparse) {
    measure_row(sequence, rows);
  } else {
    capture_rows(sequence, first, rows);
  }
  prefill.row += rows;
  return work.rows(first, rows);
}

void ModelRunner::observe_rows(Sequence& sequence, int32_t rows, const TensorView& lse) {
  const TensorView q = scratch_.q.rows(rows);
  const Sequence::Prefill& prefill = *sequence.prefill();
  const KvView kv = plan_.view(prefill.layer);
  prefill.compressor->observe(q, kv, prefill.row, lse);
  if (sequence.comparison() == nullptr) return;
  for (Comparison::Rival& rival : sequence.comparison()->rivals) {
    rival.compressor->observe(q, kv, prefill.row, lse);
  }
}

void ModelRunner::capture_rows(Sequence& sequence, int32_t first, int32_t rows) {
  const TensorView k = scratch_.k.rows(rows), v = scratch_.v.rows(rows);
  const int32_t layer = sequence.prefill()->layer;
  sequence.lanes()->capture(layer, k, v, first);
  if (sequence.comparison() == nullptr) return;
  for (Comparison::Rival& rival : sequence.comparison()->rivals) {
    rival.teacher_forced->capture(layer, k, v, first);
    rival.free_running->capture(layer, k, v, first);
  }
}

bool ModelRunner::carries_rows(const Sequence& sequence) const {
  return sequence.prefill()->layer + 1 < model_.shape().layers || scores_prompt(sequence);
}

void ModelRunner::plan_prefill(const Sequence& sequence, int32_t first, int32_t rows) {
  const Sequence::Prefill& prefill = *sequence.prefill();
  StepBuffer& buffer = *prefill_buffer_;
  buffer.begin(Phase::kPrefill, {.rows = rows, .spans = 1}, prefill.layer);
  std::copy_n(sequence.request().prompt.begin() + first, rows, buffer.token_ids());
  std::iota(buffer.positions(), buffer.positions() + rows, first);
  std::copy_n(buffer.positions(), rows, buffer.angles());
  buffer.spans()[0] = {.first_row = 0, .rows = rows, .first_lane = 0};
  cache_->view_written(sequence.lanes()->id(), prefill.layer, first, rows, buffer.lanes());
  plan_ = buffer.commit();
}

// ---- decode

absl::Status ModelRunner::decode(std::span<Sequence* const> sequences) {
  rows_.clear();
  for (Sequence* sequence : sequences) {
    rows_.push_back(
        {.lanes = sequence->lanes(),
         .token = sequence->generated().back(),
         // The place in the whole text, whatever its lanes still hold of it.
         .position = sequence->prompt_tokens() + sequence->generated_tokens() - 1,
         .output = next_token_row(sequence->request(), sequence->generated(), sequence->edits(), sequence->rng())});
  }
  rows_run_ += static_cast<int64_t>(rows_.size());
  return decode_step_->run(
      rows_, [&](size_t row, const OutputHead::Result& output) { accept(*sequences[row], output); },
      [&](size_t row, const absl::Status& status) { sequences[row]->fail(no_slots(status)); });
}

absl::Status ModelRunner::no_slots(const absl::Status& cause) {
  return absl::InternalError(absl::StrCat("the reserved cache memory was not there: ", std::string(cause.message())));
}

}  // namespace pkv
