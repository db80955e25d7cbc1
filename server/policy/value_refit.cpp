// See value_refit.h.
#include "server/policy/value_refit.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/status_macros.h"
#include "server/cache/step_buffer.h"
#include "server/cache/stored_entries.h"

namespace pkv {
namespace {

// Of the observed rows one in so many is fitted to.
constexpr size_t kRowStep = 3;
// Multiply-adds of a backend in the time of one on the host, about.
constexpr int64_t kHostFactor = 16;

}  // namespace

ValueRefit::ValueRefit(Backend& backend, const Shape& shape, std::span<const ObservationRow> rows)
    : backend_(backend), shape_(shape), rows_(chosen(shape, rows)) {}

std::vector<ValueRefit::Row> ValueRefit::chosen(const Shape& shape, std::span<const ObservationRow> rows) {
  std::vector<Row> chosen;
  for (size_t i = 0; i < rows.size(); i += kRowStep) {
    chosen.push_back({static_cast<int64_t>(i), std::max(0, shape.tokens - 1 - rows[i].position)});
  }
  return chosen;
}

TensorSet<ValueRefit> ValueRefit::tensors(const Shape& shape, std::span<const ObservationRow> rows) {
  const auto count = static_cast<int64_t>(chosen(shape, rows).size());
  const int32_t d = shape.geometry.head_dim;
  return {{&ValueRefit::outputs_, count, int64_t{shape.q_heads} * d},
          {&ValueRefit::keys_, shape.largest_lane, d},
          {&ValueRefit::values_, shape.largest_lane, d}};
}

absl::StatusOr<std::unique_ptr<ValueRefit>> ValueRefit::create(Backend& backend, const Shape& shape,
                                                               std::span<const ObservationRow> rows) {
  std::unique_ptr<ValueRefit> refit(new ValueRefit(backend, shape, rows));
  PKV_RETURN_IF_ERROR(tensors(shape, rows).allocate(backend, *refit));
  return refit;
}

uint64_t ValueRefit::bytes(const Shape& shape, std::span<const ObservationRow> rows) {
  const uint64_t count = chosen(shape, rows).size(), heads = static_cast<uint64_t>(shape.geometry.kv_heads),
                 d = static_cast<uint64_t>(shape.geometry.head_dim),
                 entries = static_cast<uint64_t>(shape.largest_lane);
  const uint64_t group = static_cast<uint64_t>(shape.q_heads) / heads;
  const uint64_t rows_of_layer = 2 * count * static_cast<uint64_t>(shape.q_heads) * d,
                 lane_rows = 2 * count * group * d + count * group, kept = heads * entries * (d + 1),
                 lane_keys = entries * d;
  // A lane's pages are read as they are, f32 entries at most.
  const uint64_t pages = uint64_t{2} * static_cast<uint64_t>(shape.tokens) * d + shape.geometry.page_bytes / 4;
  return tensors(shape, rows).bytes() + 4 * (rows_of_layer + lane_rows + kept + lane_keys + pages) +
         LaneRefit::bytes(static_cast<int64_t>(count * group), shape.largest_lane, shape.geometry.head_dim);
}

int64_t ValueRefit::work(const Shape& shape, std::span<const ObservationRow> rows) {
  const auto count = static_cast<int64_t>(chosen(shape, rows).size());
  const int64_t group = shape.q_heads / shape.geometry.kv_heads, d = shape.geometry.head_dim;
  return 2 * count * shape.tokens * shape.q_heads * d +
         kHostFactor * shape.geometry.kv_heads *
             LaneRefit::work(count * group, shape.largest_lane, shape.geometry.head_dim);
}

void ValueRefit::begin(std::span<const int32_t> counts) {
  counts_.assign(counts.begin(), counts.end());
  next_row_ = next_head_ = 0;
  lane_.reset();
}

int64_t ValueRefit::step_work() const {
  const int64_t row = int64_t{2} * shape_.tokens * shape_.q_heads * shape_.geometry.head_dim;
  return has_read() ? shape_.most_step_work : std::min(row, shape_.most_step_work);
}

// The newest entries that the row does not see are those that a step of one more row would write.
void ValueRefit::read_step(const Layer& layer) {
  StepBuffer& buffer = layer.cache.between_steps();
  const Row& row = rows_[static_cast<size_t>(next_row_)];
  buffer.begin(Phase::kDecode, {.spans = 1}, layer.layer);
  buffer.spans()[0] = {.first_row = 0, .rows = 1, .first_lane = 0};
  layer.cache.view(layer.from, layer.layer, row.unseen + 1, buffer.lanes());
  const StepPlan plan = buffer.commit();
  backend_.attend({.q = layer.observed.slice_rows(row.index, 1),
                   .out = outputs_.view().slice_rows(next_row_, 1),
                   .kv = plan.cache,
                   .spans = plan.spans,
                   .q_heads = shape_.q_heads,
                   .kv_heads = shape_.geometry.kv_heads,
                   .scale = attention_scale(shape_.geometry.head_dim),
                   .phase = Phase::kDecode});
  ++next_row_;
  if (has_read()) read_values(layer);
}

void ValueRefit::read_values(const Layer& layer) {
  const auto width = static_cast<size_t>(shape_.q_heads) * static_cast<size_t>(shape_.geometry.head_dim);
  const auto heads = static_cast<size_t>(shape_.geometry.kv_heads);
  queries_.resize(rows_.size() * width);
  attended_.resize(queries_.size());
  slots_.resize(heads);
  std::vector<Fetch> reads{{attended_.data(), outputs_.view()}};
  for (size_t i = 0; i < rows_.size(); ++i) {
    reads.push_back({queries_.data() + i * width, layer.observed.slice_rows(rows_[i].index, 1)});
  }
  for (size_t head = 0; head < heads; ++head) {
    slots_[head].resize(static_cast<size_t>(counts_[head]));
    reads.push_back(
        {slots_[head].data(), layer.kept.slice_rows(static_cast<int64_t>(head), 1).slice_cols(0, counts_[head])});
  }
  backend_.fetch(reads);
  kept_values_.clear();
  for (size_t head = 0; head < heads; ++head) {
    kept_values_.push_back(
        read_stored(layer.cache, {.sequence = layer.from, .layer = layer.layer, .kv_head = static_cast<int32_t>(head)},
                    StoredPart::kValues, slots_[head]));
  }
  skip_whole_lanes();
}

void ValueRefit::skip_whole_lanes() {
  while (!done() && counts_[static_cast<size_t>(next_head_)] == shape_.tokens) ++next_head_;
}

void ValueRefit::fit_step(const Layer& layer, std::span<const SequenceId> targets) {
  if (!lane_) begin_lane(layer, targets.front());
  lane_->run(shape_.most_step_work / kHostFactor);
  if (!lane_->done()) return;
  for (const SequenceId target : targets) write_lane(layer, target);
  lane_.reset();
  ++next_head_;
  skip_whole_lanes();
}

std::vector<float> ValueRefit::rows_of_group(std::span<const float> rows) const {
  const auto d = static_cast<size_t>(shape_.geometry.head_dim), width = static_cast<size_t>(shape_.q_heads) * d;
  const size_t part = width / static_cast<size_t>(shape_.geometry.kv_heads);
  std::vector<float> group;
  for (size_t row = 0; row < rows_.size(); ++row) {
    const std::span<const float> some = rows.subspan(row * width + static_cast<size_t>(next_head_) * part, part);
    group.insert(group.end(), some.begin(), some.end());
  }
  return group;
}

void ValueRefit::begin_lane(const Layer& layer, SequenceId target) {
  const auto count = counts_[static_cast<size_t>(next_head_)];
  std::vector<int32_t> every(static_cast<size_t>(count));
  std::iota(every.begin(), every.end(), 0);
  lane_keys_ = read_stored(layer.cache, {.sequence = target, .layer = layer.layer, .kv_head = next_head_},
                           StoredPart::kKeys, every);
  lane_queries_ = rows_of_group(queries_);
  lane_outputs_ = rows_of_group(attended_);
  lane_unseen_.clear();
  for (const Row& row : rows_) {
    lane_unseen_.insert(lane_unseen_.end(), static_cast<size_t>(shape_.q_heads / shape_.geometry.kv_heads), row.unseen);
  }
  lane_.emplace(LaneRefit::Input{.head_dim = shape_.geometry.head_dim,
                                 .scale = attention_scale(shape_.geometry.head_dim),
                                 .unseen = lane_unseen_,
                                 .queries = lane_queries_,
                                 .outputs = lane_outputs_,
                                 .keys = lane_keys_},
                std::move(kept_values_[static_cast<size_t>(next_head_)]));
}

// Keys that were rounded are rounded to themselves.
void ValueRefit::write_lane(const Layer& layer, SequenceId target) {
  const int32_t count = counts_[static_cast<size_t>(next_head_)];
  const TensorView keys = keys_.rows(count), values = values_.rows(count);
  backend_.upload(keys, lane_keys_.data());
  backend_.upload(values, lane_->values().data());
  StepBuffer& buffer = layer.cache.between_steps();
  buffer.begin(Phase::kPrefill, {.spans = 1}, layer.layer);
  buffer.spans()[0] = {.first_row = 0, .rows = count, .first_lane = next_head_};
  layer.cache.view(target, layer.layer, 0, buffer.lanes());
  Lane& lane = buffer.lanes()[next_head_];
  lane.write_slot = 0;
  lane.visible = 1;
  const StepPlan plan = buffer.commit();
  backend_.write_kv(keys, values, layer.kept.i32_row(next_head_), plan.cache, plan.spans, /*kv_heads=*/1);
}

}  // namespace pkv
