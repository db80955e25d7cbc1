// Operations hand their arguments on.
#include "kernels/cuda/cuda_backend.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/cuda/kernels.h"
#include "kernels/quant.h"
#include "kernels/status_macros.h"

namespace pkv {
namespace {

// A decode step's commit is some KiB; weights pass through in pieces. Back come rows of logits, of several MB each.
constexpr size_t kUpBytes = 16 << 20, kDownBytes = 16 << 20;

int64_t round_up(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

const CudaWeight& device_weight(const Weight& weight) { return static_cast<const CudaWeight&>(weight); }

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> CudaBackend::create(std::shared_ptr<gpu::Stream> stream,
                                                             std::unique_ptr<gpu::Blas> blas, bool graphs) {
  PKV_ASSIGN_OR_RETURN(std::unique_ptr<PinnedStaging> staging, PinnedStaging::create(stream, kUpBytes, kDownBytes));
  return std::unique_ptr<Backend>(new CudaBackend(std::move(stream), std::move(staging), std::move(blas), graphs));
}

// A decode step waits for memory and launches while rows of a prompt are computed, many at a time. Products of single
// rows take eight at a time, so that rows beyond cost little, and a recording serves eight sizes.
BackendTraits CudaBackend::traits() const {
  return {.step_rows = 256, .unit_rows = 256, .decode_rows = graphs() ? 8 : 1};
}

std::string CudaBackend::description() const {
  return absl::StrCat("cuda (", stream().description(), blas_ == nullptr ? "; float32 products" : "", ")");
}

absl::Status CudaBackend::supports(const AttentionShape& shape) const {
  constexpr int32_t kLargestHead = 256;
  if (shape.head_dim < 2 || shape.head_dim % 2 != 0 || shape.head_dim > kLargestHead) {
    return absl::UnimplementedError(
        absl::StrCat("the cuda device takes even head sizes of 2 to ", kLargestHead, ", not ", shape.head_dim));
  }
  if (shape.kv_heads < 1 || shape.q_heads % shape.kv_heads != 0) {
    return absl::UnimplementedError(absl::StrCat("the cuda device takes as many query heads for each KV head, not ",
                                                 shape.q_heads, " for ", shape.kv_heads));
  }
  return absl::OkStatus();
}

// Blocks go up as the file has them. Exact mode has them decoded there, piece after piece.
absl::StatusOr<std::unique_ptr<Weight>> CudaBackend::prepare_weight(const WeightSource& source) {
  const QuantTraits& traits = quant_traits(source.type);
  PKV_CHECK(source.rows > 0 && source.cols > 0 && source.cols % traits.block_size == 0,
            "weight rows are not whole blocks");
  const int64_t blocks = source.rows * source.cols / traits.block_size;
  const WeightType type = blas_ == nullptr ? WeightType::kF32 : source.type;
  const QuantTraits& kept = quant_traits(type);
  const auto bytes = static_cast<size_t>(source.rows * source.cols / kept.block_size * kept.block_bytes);
  PKV_ASSIGN_OR_RETURN(std::shared_ptr<std::byte> memory, take(bytes, &Taken::weights));
  auto weight = std::make_unique<CudaWeight>(source.rows, source.cols, type, std::move(memory));
  if (type == source.type) {
    upload_flat(weight->row(0), static_cast<const std::byte*>(source.data), bytes);
  } else {
    decode_uploaded(source, traits, blocks, reinterpret_cast<float*>(weight->row(0)));
  }
  PKV_RETURN_IF_ERROR(status());
  return std::unique_ptr<Weight>(std::move(weight));
}

void CudaBackend::decode_uploaded(const WeightSource& source, const QuantTraits& traits, int64_t blocks, float* to) {
  const auto fit = static_cast<int64_t>(staging().most_up()) / traits.block_bytes;
  for (int64_t done = 0; done < blocks && !stream().failed(); done += fit) {
    const int64_t piece = std::min(fit, blocks - done);
    const auto piece_bytes = static_cast<size_t>(piece * traits.block_bytes);
    const gpu::Scratch packed(stream(), piece_bytes);
    if (stream().failed()) break;
    upload_flat(packed.as<std::byte>(), static_cast<const std::byte*>(source.data) + done * traits.block_bytes,
                piece_bytes);
    gpu::decode_weights(stream(), source.type, packed.as<std::byte>(), piece * traits.block_size,
                        to + done * traits.block_size);
  }
}

void CudaBackend::embed(const Weight& table, const int32_t* ids, const TensorView& out) {
  const CudaWeight& weight = device_weight(table);
  gpu::embed(stream(), weight.type(), weight.row(0), ids, out);
}

void CudaBackend::linear(const TensorView& x, const Weight& weight, bool accumulate, Phase phase,
                         const TensorView& out) {
  PKV_CHECK(x.cols == weight.cols() && out.cols == weight.rows() && out.rows == x.rows, "shapes of a linear layer");
  if (stream().failed() || x.rows == 0) return;
  const CudaWeight& blocks = device_weight(weight);
  if (blas_ == nullptr) {
    gpu::linear_exact(stream(), x, reinterpret_cast<const float*>(blocks.row(0)), accumulate, out);
  } else if (phase == Phase::kDecode) {
    gpu::packed_gemm(stream(), x, blocks.type(), blocks.row(0), accumulate, out);
  } else {
    multiply_decoded(x, blocks, accumulate, out);
  }
}

// A prompt has rows enough to decode the weight for: some outputs at a time, into memory that does not grow with it.
// What cuBLASLt computes by follows from the weight's shape, so outputs are cut by it alone.
void CudaBackend::multiply_decoded(const TensorView& x, const CudaWeight& weight, bool accumulate,
                                   const TensorView& out) {
  constexpr int64_t kDecodedBytes = 64 << 20, kOutputs = 64;
  const int64_t inputs = round_up(weight.cols(), gpu::BfloatFactors::kMultiple);
  const int64_t row_bytes = inputs * static_cast<int64_t>(sizeof(uint16_t));
  const int64_t fit = std::max(kOutputs, kDecodedBytes / row_bytes / kOutputs * kOutputs);
  const gpu::Scratch rounded(stream(), static_cast<size_t>(round_up(x.rows, gpu::Blas::kRows) * row_bytes));
  gpu::input_factors(stream(), x, inputs, rounded.as<uint16_t>());
  for (int64_t first = 0; first < weight.rows() && !stream().failed(); first += fit) {
    const int64_t outputs = std::min(fit, weight.rows() - first);
    const gpu::Scratch decoded(stream(), static_cast<size_t>(outputs * row_bytes));
    if (stream().failed()) return;
    gpu::weight_factors(stream(), weight.type(), weight.row(first), outputs, weight.cols(), inputs,
                        decoded.as<uint16_t>());
    blas_->multiply({rounded.as<uint16_t>(), decoded.as<uint16_t>(), inputs}, accumulate,
                    out.slice_cols(first, outputs));
  }
}

// ---- kernels

void CudaBackend::fill(const TensorView& to, float value) { gpu::fill(stream(), to, value); }

void CudaBackend::rms_norm(const TensorView& x, const TensorView& gain, float eps, const TensorView& out) {
  gpu::rms_norm(stream(), x, gain, eps, out);
}

void CudaBackend::add_bias(const TensorView& x, const TensorView& bias) { gpu::add_bias(stream(), x, bias); }

void CudaBackend::rope(const TensorView& x, const int32_t* positions, const RopeSpec& spec) {
  gpu::rope(stream(), x, positions, spec);
}

void CudaBackend::turn_rows(const TensorView& x, int32_t delta, const RopeSpec& spec) {
  gpu::turn_rows(stream(), x, delta, spec);
}

void CudaBackend::silu_mul(const TensorView& gate, const TensorView& up) { gpu::silu_mul(stream(), gate, up); }

void CudaBackend::set_page_ids(int32_t* page_ids, const PageEdit* edits, int32_t count) {
  gpu::set_page_ids(stream(), page_ids, edits, count);
}

void CudaBackend::write_kv(const TensorView& k, const TensorView& v, const int32_t* positions, const KvView& kv,
                           const RowSpans& spans, int32_t kv_heads) {
  gpu::write_kv(stream(), k, v, positions, kv, spans, kv_heads);
}

void CudaBackend::attend(const AttendArgs& args) {
  if (blas_ == nullptr) return gpu::attend_exact(stream(), args);
  gpu::attend(stream(), args);
}

void CudaBackend::row_lse(const ObserveArgs& args, const TensorView& lse) {
  if (blas_ == nullptr) return gpu::row_lse_exact(stream(), args, lse);
  gpu::row_lse(stream(), args, lse);
}

void CudaBackend::column_mass(const ObserveArgs& args, const TensorView& lse, const TensorView& sums,
                              const TensorView& squares) {
  if (blas_ == nullptr) return gpu::column_mass_exact(stream(), args, lse, sums, squares);
  gpu::column_mass(stream(), args, lse, sums, squares);
}

void CudaBackend::reduce_groups(const TensorView& sums, GroupReduce reduce, const TensorView& out) {
  gpu::reduce_groups(stream(), sums, reduce, out);
}

void CudaBackend::value_norms(const KvView& kv, int32_t first_lane, int32_t kv_heads, const TensorView& factors,
                              const TensorView& norms) {
  gpu::value_norms(stream(), kv, first_lane, kv_heads, factors, norms);
}

void CudaBackend::weigh_groups(const TensorView& squares, const TensorView& weights, float scale,
                               const TensorView& out) {
  gpu::weigh_groups(stream(), squares, weights, scale, out);
}

void CudaBackend::merge_scores(const TensorView& other, bool by_mean, const TensorView& scores) {
  gpu::merge_scores(stream(), other, by_mean, scores);
}

void CudaBackend::pool_scores(const TensorView& scores, PoolKind kind, int32_t kernel, const TensorView& out) {
  gpu::pool_scores(stream(), scores, kind, kernel, out);
}

void CudaBackend::score_entries(const EntryScoring& scoring, const TensorView& scores) {
  gpu::score_entries(stream(), scoring, scores);
}

void CudaBackend::select_top(const TensorView& scores, int32_t window, const TensorView& counts,
                             const TensorView& kept) {
  gpu::select_top(stream(), scores, window, counts, kept);
}

void CudaBackend::share_layer(const TensorView& scores, const LayerShare& share, const TensorView& counts) {
  gpu::share_layer(stream(), scores, share, counts);
}

void CudaBackend::count_for_recall(const TensorView& scores, const TensorView& mass, const RecallShare& share,
                                   const TensorView& counts, const TensorView& recalls) {
  gpu::count_for_recall(stream(), scores, mass, share, counts, recalls);
}

void CudaBackend::recall(const TensorView& mass, const TensorView& kept, const TensorView& counts,
                         const TensorView& recalls) {
  gpu::recall(stream(), mass, kept, counts, recalls);
}

void CudaBackend::gather(const KvView& kv, int32_t from, const TensorView& kept, const TensorView& counts, int32_t to) {
  gpu::gather(stream(), kv, from, kept, counts, to);
}

void CudaBackend::key_norms(const KvView& kv, int32_t first_lane, const TensorView& norms) {
  gpu::key_norms(stream(), kv, first_lane, norms);
}

void CudaBackend::key_similarity(const KvView& kv, int32_t first_lane, const TensorView& unit_sums,
                                 const TensorView& cosines) {
  gpu::key_similarity(stream(), kv, first_lane, unit_sums, cosines);
}

void CudaBackend::turn_keys(const KvView& kv, int32_t first_lane, int32_t lanes, int32_t first_slot, int32_t delta,
                            const RopeSpec& spec) {
  gpu::turn_keys(stream(), kv, first_lane, lanes, first_slot, delta, spec);
}

void CudaBackend::write_turned(const TurnedRows& rows, const RopeSpec& spec) {
  gpu::write_turned(stream(), rows, spec);
}

void CudaBackend::take_columns(const TensorView& from, const TensorView& columns, const TensorView& out) {
  gpu::take_columns(stream(), from, columns, out);
}

void CudaBackend::choose_slots(const EvictingStep& step) { gpu::choose_slots(stream(), step); }

void CudaBackend::score_new_entries(const EvictingStep& step, const TensorView& k) {
  gpu::score_new_entries(stream(), step, k);
}

void CudaBackend::keep_queries(const EvictingStep& step, const TensorView& q) { gpu::keep_queries(stream(), step, q); }

void CudaBackend::add_attention(const EvictingStep& step, const TokenQueries& queries) {
  gpu::add_attention(stream(), step, queries);
}

void CudaBackend::set_scores(const ScoredLanes& lanes, const TensorView& scores, int32_t newest) {
  gpu::set_scores(stream(), lanes, scores, newest);
}

void CudaBackend::order_entries(const ScoredLanes& lanes, const TensorView& order, const TensorView& counts) {
  gpu::order_entries(stream(), lanes, order, counts);
}

void CudaBackend::sample_rows(const SampleArgs& args) { gpu::sample_rows(stream(), args); }

void CudaBackend::token_logprobs(const LogprobArgs& args) { gpu::token_logprobs(stream(), args); }

void CudaBackend::compare_rows(const TensorView& logits, const TensorView& baseline, const TensorView& results) {
  gpu::compare_rows(stream(), logits, baseline, results);
}

}  // namespace pkv
