// Cases of evictions while generating: many equal scores, entries without one, sinks, lanes of different lengths that
// grow or are full, layers and sequences between those that evict; every way to rank and to score. What comes out are
// bits, but for turned keys.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "tests/kernels/case_data.h"

namespace pkv {
namespace {

constexpr int32_t kFirstLayer = 2;  // of the step

struct EvictionSpec {
  std::string name;
  int32_t layers = 1;
  int32_t kv_heads = 3;
  int32_t step_rows = 3;          // of all sequences
  std::vector<int32_t> evicting;  // rows whose sequences evict
  int32_t entries = 40;           // of the longest lane; every third is shorter
  int32_t window = 4;
  int32_t head_dim = 16;
  EntryRank rank = EntryRank::kScore;
  NewEntryScore new_score = NewEntryScore::kUnscored;
  bool unscored = false;  // no candidate has a score
};

// One sequence's scores and positions on the host.
struct SequenceData {
  std::vector<float> scores;
  std::vector<int32_t> positions;
  int32_t next_position = 0;
};

class EvictionCase : public OperationCase {
 public:
  EvictionCase(const std::string& operation, EvictionSpec spec)
      : OperationCase(absl::StrCat(operation, "/", spec.name)), spec_(std::move(spec)) {}

 protected:
  struct State {
    std::vector<BackendArray<float>> scores, key_sums;
    std::vector<BackendArray<int32_t>> positions;
    BackendArray<EvictingRow> rows;
    BackendArray<Lane> lanes;
    CaseTensor input, order, counts;
  };

  const EvictionSpec& spec() const { return spec_; }
  int32_t lanes_per_layer() const { return spec_.step_rows * spec_.kv_heads; }
  // Of the lane with this number, without the new token.
  int32_t entries(int32_t lane) const { return lane % 3 == 2 ? spec_.entries / 2 + lane % 7 : spec_.entries; }
  static bool grows(int32_t lane) { return lane % 4 == 1; }

  std::shared_ptr<State> make_state(Backend& backend) const {
    auto random = rng();
    auto state = std::make_shared<State>();
    std::vector<Lane> lanes(static_cast<size_t>(spec_.layers * lanes_per_layer()), Lane{.length = 5, .write_slot = 4});
    std::vector<EvictingRow> rows;
    for (const int32_t row : spec_.evicting) {
      const SequenceData data = draw(random, row, lanes);
      const Matrix sums = random_matrix(random, (kFirstLayer + spec_.layers) * spec_.kv_heads, spec_.head_dim, 3.0f);
      state->scores.emplace_back(backend, data.scores);
      state->positions.emplace_back(backend, data.positions);
      state->key_sums.emplace_back(backend, sums.values);
      rows.push_back({.scores = state->scores.back().data(),
                      .positions = state->positions.back().data(),
                      .key_sums = state->key_sums.back().data(),
                      .seed = random(),
                      .row = row,
                      .position = data.next_position,
                      .window = spec_.window,
                      .rank = spec_.rank,
                      .new_score = spec_.new_score});
    }
    state->rows = {backend, rows};
    state->lanes = {backend, lanes};
    return state;
  }

  EvictingStep step(const State& state) const {
    return {.rows = state.rows.data(),
            .count = static_cast<int32_t>(spec_.evicting.size()),
            .lanes = state.lanes.data(),
            .lanes_per_layer = lanes_per_layer(),
            .first_layer = kFirstLayer,
            .layers = spec_.layers,
            .kv_heads = spec_.kv_heads};
  }
  // The lanes of the first evicting row in the first layer.
  ScoredLanes scored_lanes(const State& state) const {
    return {.lanes = state.lanes.data() + spec_.evicting[0] * spec_.kv_heads,
            .count = spec_.kv_heads,
            .scores = state.scores[0].data(),
            .positions = state.positions[0].data()};
  }

  template <typename T>
  static Output bits(Backend& backend, std::string name, const BackendArray<T>& array) {
    Output output{.name = std::move(name)};
    const size_t bytes = static_cast<size_t>(array.size()) * sizeof(T);
    output.exact.resize(bytes / 4);
    if (bytes > 0) download_words(backend, output.exact.data(), array.data(), bytes);
    return output;
  }
  Outputs outputs(Backend& backend, const State& state) const {
    Outputs all{slots(backend, state)};
    for (size_t i = 0; i < state.scores.size(); ++i) {
      all.push_back(bits(backend, absl::StrCat("scores ", i), state.scores[i]));
      all.push_back(bits(backend, absl::StrCat("positions ", i), state.positions[i]));
      all.push_back(bits(backend, absl::StrCat("key sums ", i), state.key_sums[i]));
    }
    return all;
  }

 private:
  static Output slots(Backend& backend, const State& state) {
    std::vector<Lane> lanes(static_cast<size_t>(state.lanes.size()));
    download_words(backend, lanes.data(), state.lanes.data(), lanes.size() * sizeof(Lane));
    Output output{.name = "slots"};
    for (const Lane& lane : lanes) output.exact.push_back(lane.write_slot);
    return output;
  }

  // Some scores for all of a row's lanes, and what the lanes say of it.
  SequenceData draw(std::mt19937& random, int32_t row, std::vector<Lane>& lanes) const {
    SequenceData data{.next_position = 3 * spec_.entries};
    for (int32_t layer = 0; layer < spec_.layers; ++layer) {
      for (int32_t head = 0; head < spec_.kv_heads; ++head) {
        const int32_t index = layer * lanes_per_layer() + row * spec_.kv_heads + head;
        const int32_t count = entries(index);
        Lane& lane = lanes[static_cast<size_t>(index)];
        lane.first_score = static_cast<int32_t>(data.scores.size());
        lane.length = grows(index) ? count + 1 : count;
        lane.write_slot = grows(index) ? count : kChosenByEviction;
        std::vector<int32_t> all(static_cast<size_t>(data.next_position));
        std::iota(all.begin(), all.end(), 0);
        std::shuffle(all.begin(), all.end(), random);
        for (int32_t slot = 0; slot <= count; ++slot) {  // with room for one more
          const int32_t at = slot < count ? all[static_cast<size_t>(slot)] : -1;
          data.positions.push_back(at);
          data.scores.push_back(draw_score(random, at));
        }
      }
    }
    return data;
  }

  float draw_score(std::mt19937& random, int32_t position) const {
    if (position % 10 == 3) return kNeverEvicted;
    if (spec_.unscored || random() % 5 == 0) return kNoScore;
    if (random() % 9 == 0) return -0.0f;
    return static_cast<float>(random() % 8) - 3.0f;
  }

  EvictionSpec spec_;
};

class ChooseSlotsCase : public EvictionCase {
 public:
  explicit ChooseSlotsCase(EvictionSpec spec) : EvictionCase("choose_slots", std::move(spec)) {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    auto state = make_state(backend);
    return make_prepared([this, state, &backend] { backend.choose_slots(step(*state)); },
                         [this, state, &backend] { return outputs(backend, *state); });
  }
};

// The keys of a step whose slots are chosen; some have no length.
class ScoreNewEntriesCase : public EvictionCase {
 public:
  explicit ScoreNewEntriesCase(EvictionSpec spec) : EvictionCase("score_new_entries", std::move(spec)) {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    auto state = make_state(backend);
    auto random = rng();
    Matrix k = random_matrix(random, spec().step_rows, int64_t{spec().kv_heads} * spec().head_dim);
    std::fill_n(k.row(spec().evicting[0]), spec().head_dim, 0.0f);
    state->input = CaseTensor(backend, k, Placement::kStrided);
    backend.choose_slots(step(*state));
    return make_prepared([this, state, &backend] { backend.score_new_entries(step(*state), state->input.view()); },
                         [this, state, &backend] { return outputs(backend, *state); });
  }
};

class SetScoresCase : public EvictionCase {
 public:
  explicit SetScoresCase(EvictionSpec spec) : EvictionCase("set_scores", std::move(spec)) {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    auto state = make_state(backend);
    auto random = rng();
    state->input = CaseTensor(backend, random_matrix(random, spec().kv_heads, spec().entries + 5), Placement::kStrided);
    const auto run = [this, state, &backend] {
      backend.set_scores(scored_lanes(*state), state->input.view(), spec().window);
    };
    return make_prepared(run, [this, state, &backend] { return outputs(backend, *state); });
  }
};

class OrderEntriesCase : public EvictionCase {
 public:
  explicit OrderEntriesCase(EvictionSpec spec) : EvictionCase("order_entries", std::move(spec)) {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    auto state = make_state(backend);
    const int64_t cols = spec().entries + 3;
    state->order = CaseTensor(backend, spec().kv_heads, cols,
                              std::vector<int32_t>(static_cast<size_t>(spec().kv_heads * cols), -77));
    state->counts =
        CaseTensor(backend, 1, spec().kv_heads, std::vector<int32_t>(static_cast<size_t>(spec().kv_heads), -77));
    return make_prepared(
        [this, state, &backend] {
          backend.order_entries(scored_lanes(*state), state->order.view(), state->counts.view());
        },
        [this, state, &backend] {
          Outputs all = outputs(backend, *state);
          all.push_back(state->order.integers(backend, "order"));
          all.push_back(state->counts.integers(backend, "counts"));
          return all;
        });
  }
};

class TakeColumnsCase : public OperationCase {
 public:
  TakeColumnsCase(int32_t rows, int32_t columns, int32_t count)
      : OperationCase(absl::StrCat("take_columns/", rows, "x", count, "_of_", columns)),
        rows_(rows),
        columns_(columns),
        count_(count) {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    struct State {
      CaseTensor from, columns, out;
    };
    auto state = std::make_shared<State>();
    auto random = rng();
    state->from = CaseTensor(backend, random_matrix(random, rows_, columns_), Placement::kStrided);
    std::vector<int32_t> columns;
    for (int32_t i = 0; i < rows_ * count_; ++i) {
      columns.push_back(static_cast<int32_t>(random() % static_cast<uint32_t>(columns_)));
    }
    state->columns = CaseTensor(backend, rows_, count_, columns);
    state->out = CaseTensor(backend, Matrix(rows_, count_), Placement::kStrided);
    return make_prepared(
        [state, &backend] { backend.take_columns(state->from.view(), state->columns.view(), state->out.view()); },
        [state, &backend] { return Outputs{state->out.floats(backend, "out")}; });
  }

  std::vector<double> tolerance(const Outputs& expected, size_t output, Accuracy) const override {
    return relative_tolerance(expected[output].floats, 0, 0);
  }

 private:
  int32_t rows_, columns_, count_;
};

// Two layers of two sequences, of which the second has its first rows turned.
class WriteTurnedCase : public OperationCase {
 public:
  WriteTurnedCase(KvDtype dtype, RopePairing pairing, int32_t rows)
      : OperationCase(absl::StrCat("write_turned/", entry_format(dtype).name,
                                   pairing == RopePairing::kAdjacent ? "_adjacent_" : "_halves_", rows)),
        dtype_(dtype),
        pairing_(pairing),
        rows_(rows) {
    for (int32_t i = 0; i < 24; ++i) inv_freq_.push_back(static_cast<float>(std::pow(1e4, -2.0 * i / 48)));
  }

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    struct State {
      std::unique_ptr<CaseCache> cache;
      CaseTensor keys, values, turned;
      BackendArray<float> inv_freq;
    };
    auto state = std::make_shared<State>();
    auto random = rng();
    CacheSpec cache{.head_dim = kHeadDim, .page_bytes = 3072};
    for (int32_t lane = 0; lane < kLayers * 2 * kHeads; ++lane) {
      cache.lanes.push_back(
          {.filled = kEntries, .lane = {.length = kEntries, .write_slot = 9, .visible = kEntries, .dtype = dtype_}});
    }
    state->cache = std::make_unique<CaseCache>(backend, CacheContent(random, std::move(cache)));
    const int64_t width = int64_t{kHeads} * kHeadDim;
    state->keys = CaseTensor(backend, random_matrix(random, kLayers * rows_, width), Placement::kStrided);
    state->values = CaseTensor(backend, random_matrix(random, kLayers * rows_, width), Placement::kStrided);
    state->turned = CaseTensor(backend, Matrix(rows_, width), Placement::kDense);
    state->inv_freq = {backend, inv_freq_};
    const auto run = [this, state, &backend] {
      const TurnedRows rows{.keys = state->keys.view(),
                            .values = state->values.view(),
                            .turned = state->turned.view(),
                            .rows = rows_,
                            .delta = 333,
                            .kv = state->cache->view(),
                            .first_lane = kHeads,
                            .lanes_per_layer = 2 * kHeads,
                            .layers = kLayers,
                            .kv_heads = kHeads};
      backend.write_turned(rows, {.inv_freq = state->inv_freq.data(),
                                  .pairs = state->inv_freq.size(),
                                  .pairing = pairing_,
                                  .head_dim = kHeadDim,
                                  .magnitude = 1.5f});
    };
    return make_prepared(run, [this, state] {
      Outputs outputs;
      for (int32_t lane = 0; lane < kLayers * 2 * kHeads; ++lane) outputs.push_back(lane_output(*state->cache, lane));
      return outputs;
    });
  }

  std::vector<double> tolerance(const Outputs& expected, size_t output, Accuracy) const override {
    return turned_tolerance(expected[output], dtype_);
  }

 private:
  static constexpr int32_t kLayers = 2, kHeads = 2, kHeadDim = 64, kEntries = 30;

  Output lane_output(const CaseCache& cache, int32_t lane) const {
    const bool turned = lane / kHeads % 2 == 1;
    return cache.entries(lane, kEntries, {.end_slot = turned ? rows_ : 0, .dims = kHeadDim});
  }

  KvDtype dtype_;
  RopePairing pairing_;
  int32_t rows_;
  std::vector<float> inv_freq_;
};

void add_choose_cases(OperationCases& cases) {
  const auto add = [&](EvictionSpec spec) { cases.push_back(std::make_unique<ChooseSlotsCase>(std::move(spec))); };
  const std::pair<EntryRank, const char*> ranks[] = {
      {EntryRank::kScore, "score"}, {EntryRank::kScorePerQuery, "per_query"}, {EntryRank::kAge, "age"}};
  for (const auto& [rank, name] : ranks) {
    for (const int32_t window : {1, 8, 100}) {
      add({.name = absl::StrCat(name, "_window_", window), .evicting = {0, 2}, .window = window, .rank = rank});
    }
    add({.name = absl::StrCat(name, "_none_scored"), .evicting = {1}, .rank = rank, .unscored = true});
    add({.name = absl::StrCat(name, "_many_layers"),
         .layers = 5,
         .kv_heads = 2,
         .step_rows = 7,
         .evicting = {0, 3, 4},
         .entries = 1500,
         .rank = rank});
  }
  for (const NewEntryScore score : {NewEntryScore::kZero, NewEntryScore::kPosition, NewEntryScore::kHash}) {
    add({.name = absl::StrCat("new_entries_", static_cast<int>(score)),
         .layers = 3,
         .evicting = {1, 2},
         .new_score = score});
  }
  add({.name = "nobody_evicts"});
}

}  // namespace

void add_eviction_cases(OperationCases& cases) {
  add_choose_cases(cases);
  for (const NewEntryScore score : {NewEntryScore::kKeyNorm, NewEntryScore::kKeySimilarity, NewEntryScore::kZero}) {
    for (const int32_t head_dim : {4, 64, 80}) {
      cases.push_back(std::make_unique<ScoreNewEntriesCase>(
          EvictionSpec{.name = absl::StrCat("kind_", static_cast<int>(score), "_d", head_dim),
                       .evicting = {0, 2},
                       .head_dim = head_dim,
                       .new_score = score}));
    }
  }
  for (const int32_t entries : {12, 700, 5000}) {
    const EvictionSpec spec{.name = absl::StrCat(entries), .evicting = {1, 2}, .entries = entries, .window = 8};
    cases.push_back(std::make_unique<SetScoresCase>(spec));
    cases.push_back(std::make_unique<OrderEntriesCase>(spec));
  }
  cases.push_back(std::make_unique<TakeColumnsCase>(3, 100, 17));
  cases.push_back(std::make_unique<TakeColumnsCase>(1, 1, 1));
  cases.push_back(std::make_unique<TakeColumnsCase>(2, 5, 0));
  for (const EntryFormat& format : kEntryFormats.rows) {
    for (const RopePairing pairing : {RopePairing::kAdjacent, RopePairing::kHalves}) {
      for (const int32_t rows : {1, 4, 20}) {
        cases.push_back(std::make_unique<WriteTurnedCase>(format.id, pairing, rows));
      }
    }
  }
}

}  // namespace pkv
