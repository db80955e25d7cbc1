// Prefill units and decode steps.
#include "server/engine/stepper.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/sampler.h"

namespace pkv {
namespace {

// Rows of the output head computed at once: nothing of size prompt x vocabulary exists.
constexpr int32_t kLogitsRows = 64;

absl::Status no_slots(const absl::Status& cause) {
  return absl::InternalError(absl::StrCat("the reserved cache memory was not there: ", std::string(cause.message())));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Stepper>> Stepper::create(const Model& model, const EngineOptions& options) {
  std::unique_ptr<Stepper> stepper(new Stepper(model, options));
  if (absl::Status status = stepper->allocate(); !status.ok()) return status;
  return stepper;
}

absl::Status Stepper::allocate() {
  const ModelShape& shape = model_.shape();
  Backend& backend = model_.backend();
  auto cache = KvCache::create(backend,
                               {.layers = shape.layers,
                                .kv_heads = shape.kv_heads,
                                .head_dim = shape.head_dim,
                                .page_bytes = options_.page_bytes},
                               options_.pool_bytes);
  if (!cache.ok()) return cache.status();
  cache_ = *std::move(cache);
  auto scores = CompressorScratch::create(backend, shape.q_heads, shape.kv_heads, shape.max_positions);
  if (!scores.ok()) return scores.status();
  compressor_scratch_ = *std::move(scores);
  auto scratch = model_.make_scratch(options_.step_tokens);
  if (!scratch.ok()) return scratch.status();
  scratch_ = *std::move(scratch);

  const int32_t logits_rows = std::min(kLogitsRows, options_.step_tokens);
  const struct {
    Tensor& tensor;
    int64_t rows, cols;
  } wanted[] = {{decode_x_, std::min(options_.step_tokens, options_.max_running), shape.width},
                {logits_, logits_rows, shape.vocab_size},
                {lse_, logits_rows, 1}};
  for (const auto& [tensor, rows, cols] : wanted) {
    auto allocated = backend.allocate(rows, cols, DType::kF32);
    if (!allocated.ok()) return allocated.status();
    tensor = *std::move(allocated);
  }
  host_logits_.resize(static_cast<size_t>(logits_rows) * static_cast<size_t>(shape.vocab_size));
  host_lse_.resize(static_cast<size_t>(logits_rows));
  return absl::OkStatus();
}

uint64_t Stepper::shared_workspace_bytes() const {
  return scratch_.bytes() + compressor_scratch_->bytes() + decode_x_.bytes() + logits_.bytes() + lse_.bytes() +
         host_logits_.size() * sizeof(float) + host_lse_.size() * sizeof(float);
}

// ---- prefill
// ----------------------------------------------------------------------------------------------------------

absl::Status Stepper::start_prefill(Sequence& sequence) {
  const ModelShape& shape = model_.shape();
  auto residual = model_.backend().allocate(sequence.prompt_tokens(), shape.width, DType::kF32);
  if (!residual.ok()) return residual.status();
  auto compressor = Compressor::create(model_.backend(), *sequence.contract.policy,
                                       {.geometry = cache_->geometry(),
                                        .q_heads = shape.q_heads,
                                        .prompt_tokens = sequence.prompt_tokens(),
                                        .record_positions = sequence.request->record_positions});
  if (!compressor.ok()) return compressor.status();
  sequence.residual = *std::move(residual);
  sequence.compressor = *std::move(compressor);
  sequence.workspace_bytes = sequence.residual.bytes() + sequence.compressor->workspace_bytes();
  sequence.cache_id = cache_->open(sequence.request->policy.kv_dtype);
  sequence.prefill_started_at = sequence.progress_at = options_.clock();
  return absl::OkStatus();
}

absl::StatusOr<int64_t> Stepper::prefill_unit(Sequence& sequence) {
  int64_t work = 0;
  if (sequence.layer < model_.shape().layers) {
    absl::StatusOr<int64_t> done = layer_unit(sequence);
    if (!done.ok()) return done;
    work = *done;
  } else {
    work = scoring_unit(sequence);
  }
  const int32_t stages = model_.shape().layers + (scores_prompt(sequence) ? 1 : 0);
  if (sequence.layer == stages) finish_prompt(sequence);
  return work;
}

absl::StatusOr<int64_t> Stepper::layer_unit(Sequence& sequence) {
  const int32_t tokens = sequence.prompt_tokens(), layer = sequence.layer;
  const int32_t rows = std::min(options_.prefill_chunk_rows, tokens - sequence.row);
  if (absl::Status status = cache_->append_slots(*sequence.cache_id, layer, rows); !status.ok()) {
    return no_slots(status);
  }
  plan_prefill(sequence, rows);
  const TensorView x = sequence.residual.view().slice_rows(sequence.row, rows);
  if (layer == 0) model_.embed(plan_.token_ids, x);

  // Of the last layer only the rows that the output head reads are wanted.
  const bool last_chunk = sequence.row + rows == tokens;
  const bool all_rows = layer + 1 < model_.shape().layers || scores_prompt(sequence);
  const int32_t outputs = all_rows ? rows : (last_chunk ? 1 : 0);
  model_.run_layer(plan_, layer, x, scratch_, outputs);
  sequence.compressor->observe(scratch_.q.rows(rows), sequence.row);

  sequence.row += rows;
  if (last_chunk) finish_layer(sequence);
  return rows;
}

void Stepper::plan_prefill(const Sequence& sequence, int32_t rows) {
  plan_.phase = Phase::kPrefill;
  const auto first = sequence.request->prompt.begin() + sequence.row;
  plan_.token_ids.assign(first, first + rows);
  plan_.positions.resize(static_cast<size_t>(rows));
  for (int32_t i = 0; i < rows; ++i) plan_.positions[static_cast<size_t>(i)] = sequence.row + i;
  plan_.spans.assign(1, {.first_row = 0, .rows = rows, .first_lane = 0});
  plan_.first_layer = sequence.layer;
  plan_.layer_lanes.resize(1);
  plan_.layer_lanes[0].clear();
  plan_.page_ids.clear();
  plan_.cache = cache_->base_view();
  cache_->view(*sequence.cache_id, sequence.layer, rows, plan_.layer_lanes[0], plan_.page_ids);
}

void Stepper::finish_layer(Sequence& sequence) {
  model_.backend().sync();  // so that the time belongs to the cut alone
  const absl::Time start = options_.clock();
  sequence.outcomes.push_back(
      sequence.compressor->finish_layer(*cache_, *sequence.cache_id, sequence.layer, *compressor_scratch_));
  model_.backend().sync();
  sequence.compress_time += options_.clock() - start;
  ++sequence.layer;
  sequence.row = 0;
}

int64_t Stepper::scoring_unit(Sequence& sequence) {
  const std::vector<TokenId>& prompt = sequence.request->prompt;
  const int32_t first = sequence.row;
  const auto rows = std::min(static_cast<int32_t>(logits_.view().rows), sequence.prompt_tokens() - first);
  compute_logits(sequence.residual.view().slice_rows(first, rows), Phase::kPrefill, /*with_lse=*/true);

  std::vector<TokenLogprob> tile;
  if (first == 0) tile.push_back({.id = prompt[0]});  // nothing precedes it
  for (int32_t i = 0; i < rows && first + i + 1 < sequence.prompt_tokens(); ++i) {
    tile.push_back(token_logprob(logits_row(i), host_lse_[static_cast<size_t>(i)],
                                 prompt[static_cast<size_t>(first + i + 1)], sequence.request->top_logprobs));
  }
  if (!tile.empty()) sequence.sink->on_prompt_logprobs(tile);
  sequence.row += rows;
  if (sequence.row == sequence.prompt_tokens()) ++sequence.layer;
  return rows * head_work_layers(model_.shape());
}

// The first token comes from the whole prompt's own attention; what was kept counts from the second on.
void Stepper::finish_prompt(Sequence& sequence) {
  if (sequence.request->sampling.max_tokens > 0) {
    const TensorView last = sequence.residual.view().slice_rows(sequence.prompt_tokens() - 1, 1);
    compute_logits(last, Phase::kPrefill, sequence.request->logprobs);
    sample_row(sequence, 0);
  } else {
    sequence.finish_reason = FinishReason::kLength;
  }
  sequence.residual = Tensor();
  sequence.compressor.reset();
  sequence.phase = SequencePhase::kDecode;
}

// ---- decode
// -----------------------------------------------------------------------------------------------------------

void Stepper::decode(std::span<Sequence* const> sequences) {
  const auto most = static_cast<size_t>(decode_x_.view().rows);
  for (size_t first = 0; first < sequences.size(); first += most) {
    decode_rows(sequences.subspan(first, std::min(most, sequences.size() - first)));
  }
}

bool Stepper::append_row(Sequence& sequence) {
  for (int32_t layer = 0; layer < model_.shape().layers; ++layer) {
    if (absl::Status status = cache_->append_slots(*sequence.cache_id, layer, 1); !status.ok()) {
      sequence.failure = no_slots(status);
      return false;
    }
  }
  return true;
}

void Stepper::decode_rows(std::span<Sequence* const> sequences) {
  decoding_.clear();
  for (Sequence* sequence : sequences) {
    if (append_row(*sequence)) decoding_.push_back(sequence);
  }
  if (decoding_.empty()) return;
  plan_decode(decoding_);
  const TensorView x = decode_x_.rows(plan_.rows());
  model_.embed(plan_.token_ids, x);
  for (int32_t layer = 0; layer < model_.shape().layers; ++layer) {
    model_.run_layer(plan_, layer, x, scratch_, plan_.rows());
  }
  const int64_t tile = logits_.view().rows;
  for (int64_t first = 0; first < x.rows; first += tile) {
    const int64_t rows = std::min(tile, x.rows - first);
    const auto begin = decoding_.begin() + first;
    const bool with_lse = std::any_of(begin, begin + rows, [](const Sequence* s) { return s->request->logprobs; });
    compute_logits(x.slice_rows(first, rows), Phase::kDecode, with_lse);
    for (int64_t row = 0; row < rows; ++row) sample_row(*begin[row], row);
  }
}

void Stepper::plan_decode(std::span<Sequence* const> sequences) {
  const ModelShape& shape = model_.shape();
  plan_.phase = Phase::kDecode;
  plan_.token_ids.clear();
  plan_.positions.clear();
  plan_.spans.clear();
  for (size_t i = 0; i < sequences.size(); ++i) {
    const Sequence& sequence = *sequences[i];
    const auto row = static_cast<int32_t>(i);
    plan_.token_ids.push_back(sequence.generated.back());
    // The place in the whole text, whatever its lanes still hold of it.
    plan_.positions.push_back(sequence.prompt_tokens() + sequence.generated_tokens() - 1);
    plan_.spans.push_back({.first_row = row, .rows = 1, .first_lane = row * shape.kv_heads});
  }
  plan_.first_layer = 0;
  plan_.layer_lanes.resize(static_cast<size_t>(shape.layers));
  plan_.page_ids.clear();
  plan_.cache = cache_->base_view();
  for (int32_t layer = 0; layer < shape.layers; ++layer) {
    std::vector<Lane>& lanes = plan_.layer_lanes[static_cast<size_t>(layer)];
    lanes.clear();
    for (const Sequence* sequence : sequences) cache_->view(*sequence->cache_id, layer, 1, lanes, plan_.page_ids);
  }
}

// ---- output
// -----------------------------------------------------------------------------------------------------------

void Stepper::compute_logits(const TensorView& x, Phase phase, bool with_lse) {
  const TensorView logits = logits_.view().slice_rows(0, x.rows);
  model_.logits(x, phase, scratch_.normed.view().slice_rows(0, x.rows), logits);
  if (with_lse) {
    const TensorView lse = lse_.view().slice_rows(0, x.rows);
    model_.backend().log_sum_exp(logits, lse);
    model_.backend().download(host_lse_.data(), lse);
  }
  model_.backend().download(host_logits_.data(), logits);
}

std::span<float> Stepper::logits_row(int64_t row) {
  const auto vocabulary = static_cast<size_t>(model_.shape().vocab_size);
  return std::span(host_logits_).subspan(static_cast<size_t>(row) * vocabulary, vocabulary);
}

void Stepper::sample_row(Sequence& sequence, int64_t row) {
  const Request& request = *sequence.request;
  const TokenLogprob token = sample({.logits = logits_row(row),
                                     .log_sum_exp = host_lse_[static_cast<size_t>(row)],
                                     .prompt = request.prompt,
                                     .generated = sequence.generated,
                                     .forbidden = sequence.forbidden(),
                                     .logprobs = request.logprobs,
                                     .top_logprobs = request.top_logprobs},
                                    request.sampling, sequence.rng);
  sequence.accept(token, options_.clock());
}

void Stepper::release(Sequence& sequence) {
  if (sequence.cache_id) cache_->close(*sequence.cache_id);
  sequence.cache_id.reset();
  sequence.residual = Tensor();
  sequence.compressor.reset();
}

}  // namespace pkv
