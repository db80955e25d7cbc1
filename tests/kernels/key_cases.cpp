// Cases of key_norms, value_norms, key_similarity and turn_keys: every entry format, pages of several sizes, lanes
// longer than what is asked for, keys without length, both pairings, rotations of some dimensions and from the middle
// of a page.
#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "tests/kernels/case_data.h"

namespace pkv {
namespace {

constexpr int32_t kFirstLane = 1;  // a lane of another sequence comes before, and one after

struct KeySpec {
  std::string name;
  int32_t head_dim = 64;
  int32_t page_bytes = 4096;
  std::vector<KvDtype> dtypes;  // a lane each
  int32_t length = 0;
  int32_t columns = 0;  // slots that the scores are for; the first of `length`
};

// A cache whose keys are drawn around a common one, as keys of real heads are; every 11th has no length.
class KeyCase : public OperationCase {
 public:
  KeyCase(const std::string& operation, KeySpec spec)
      : OperationCase(absl::StrCat(operation, "/", spec.name)), spec_(std::move(spec)) {}

 protected:
  const KeySpec& spec() const { return spec_; }
  int32_t lanes() const { return static_cast<int32_t>(spec_.dtypes.size()); }

  std::unique_ptr<CaseCache> make_cache(Backend& backend) const {
    auto random = rng();
    const auto lane = [&](int32_t filled, int32_t length, KvDtype dtype) {
      return CaseLane{.filled = filled, .lane = {.length = length, .visible = 1, .dtype = dtype}};
    };
    CacheSpec cache{.head_dim = spec_.head_dim, .page_bytes = spec_.page_bytes, .lanes = {lane(9, 9, KvDtype::kF16)}};
    for (KvDtype dtype : spec_.dtypes) cache.lanes.push_back(lane(0, spec_.length, dtype));
    cache.lanes.push_back(lane(9, 9, KvDtype::kF32));
    auto made = std::make_unique<CaseCache>(backend, CacheContent(random, std::move(cache)));
    const int64_t width = static_cast<int64_t>(lanes()) * spec_.head_dim;
    Matrix keys = random_matrix(random, spec_.length, width, 2.0f);
    const Matrix common = random_matrix(random, 1, width);
    for (int64_t row = 0; row < keys.rows; ++row) {
      for (int64_t i = 0; i < width; ++i) keys.row(row)[i] = row % 11 == 7 ? 0.0f : keys.row(row)[i] + common.values[i];
    }
    const CaseTensor k(backend, keys, Placement::kDense);
    const CaseTensor v(backend, random_matrix(random, spec_.length, width), Placement::kDense);
    std::vector<int32_t> positions;
    for (int32_t i = 0; i < spec_.length; ++i) positions.push_back(2 * i + 1);
    const BackendArray<int32_t> on_backend(backend, positions);
    const BackendArray<RowSpan> span(backend, {{.rows = spec_.length, .first_lane = kFirstLane}});
    backend.write_kv(k.view(), v.view(), on_backend.data(), made->view(), row_spans(span), lanes());
    return made;
  }

 private:
  KeySpec spec_;
};

class KeyNormsCase : public KeyCase {
 public:
  explicit KeyNormsCase(KeySpec spec) : KeyCase("key_norms", std::move(spec)) {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    struct State {
      std::unique_ptr<CaseCache> cache;
      CaseTensor norms;
    };
    auto state = std::make_shared<State>();
    state->cache = make_cache(backend);
    state->norms = CaseTensor(backend, Matrix(lanes(), spec().columns, -1.0f), Placement::kStrided);
    return make_prepared(
        [state, &backend] { backend.key_norms(state->cache->view(), kFirstLane, state->norms.view()); },
        [state, &backend] { return Outputs{state->norms.floats(backend, "norms")}; });
  }

  std::vector<double> tolerance(const Outputs& expected, size_t output, Accuracy) const override {
    return relative_tolerance(expected[output].floats, 2e-6, 0);
  }
};

class ValueNormsCase : public KeyCase {
 public:
  explicit ValueNormsCase(KeySpec spec) : KeyCase("value_norms", std::move(spec)) {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    constexpr int32_t kGroup = 3;
    struct State {
      std::unique_ptr<CaseCache> cache;
      CaseTensor factors, norms;
    };
    auto state = std::make_shared<State>();
    state->cache = make_cache(backend);
    auto random = rng();
    Matrix factors = random_matrix(random, int64_t{kGroup} * lanes() * spec().head_dim, spec().head_dim);
    for (int64_t row = 0; row < factors.rows; ++row) {  // nothing above the diagonal is read
      for (int64_t column = row % spec().head_dim + 1; column < factors.cols; ++column) {
        factors.row(row)[column] = std::numeric_limits<float>::quiet_NaN();
      }
    }
    state->factors = CaseTensor(backend, factors, Placement::kStrided);
    state->norms = CaseTensor(backend, Matrix(int64_t{kGroup} * lanes(), spec().columns, -1.0f), Placement::kStrided);
    const auto run = [this, state, &backend] {
      backend.value_norms(state->cache->view(), kFirstLane, lanes(), state->factors.view(), state->norms.view());
    };
    return make_prepared(run, [state, &backend] { return Outputs{state->norms.floats(backend, "norms")}; });
  }

  std::vector<double> tolerance(const Outputs& expected, size_t output, Accuracy) const override {
    return relative_tolerance(expected[output].floats, 4e-6, 1e-6);
  }
};

class KeySimilarityCase : public KeyCase {
 public:
  explicit KeySimilarityCase(KeySpec spec) : KeyCase("key_similarity", std::move(spec)) {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    struct State {
      std::unique_ptr<CaseCache> cache;
      CaseTensor unit_sums, cosines;
    };
    auto state = std::make_shared<State>();
    state->cache = make_cache(backend);
    state->unit_sums = CaseTensor(backend, Matrix(lanes(), spec().head_dim, -1.0f), Placement::kStrided);
    state->cosines = CaseTensor(backend, Matrix(lanes(), spec().columns, -9.0f), Placement::kStrided);
    const auto run = [state, &backend] {
      backend.key_similarity(state->cache->view(), kFirstLane, state->unit_sums.view(), state->cosines.view());
    };
    return make_prepared(run, [state, &backend] {
      return Outputs{state->unit_sums.floats(backend, "unit_sums"), state->cosines.floats(backend, "cosines")};
    });
  }

  // Roundings of sums of unit vectors, and of cosines, which are at most 1.
  std::vector<double> tolerance(const Outputs& expected, size_t output, Accuracy) const override {
    const double size = output == 0 ? std::sqrt(spec().columns) : 1;
    return relative_tolerance(expected[output].floats, 2e-6, 2e-6 * size);
  }
};

struct Turn {
  int32_t first_slot = 0;
  int32_t delta = 0;
  RopePairing pairing = RopePairing::kAdjacent;
  int32_t rotary_dims = 64;
};

std::string turn_name(const KeySpec& spec, const Turn& turn) {
  return absl::StrCat(spec.name, turn.pairing == RopePairing::kAdjacent ? "_adjacent" : "_halves", "/",
                      turn.rotary_dims, "_dims_from_", turn.first_slot, "_by_", turn.delta);
}

class TurnKeysCase : public KeyCase {
 public:
  TurnKeysCase(KeySpec spec, const Turn& turn)
      : KeyCase("turn_keys", {.name = turn_name(spec, turn),
                              .head_dim = spec.head_dim,
                              .page_bytes = spec.page_bytes,
                              .dtypes = spec.dtypes,
                              .length = spec.length}),
        turn_(turn) {
    for (int32_t i = 0; i < turn.rotary_dims / 2; ++i) {
      inv_freq_.push_back(static_cast<float>(std::pow(1e4, -2.0 * i / turn.rotary_dims)));
    }
  }

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    auto cache = std::shared_ptr<CaseCache>(make_cache(backend));
    const auto run = [this, cache, &backend, inv_freq = BackendArray<float>(backend, inv_freq_)] {
      const RopeSpec rope{.inv_freq = inv_freq.data(),
                          .pairs = inv_freq.size(),
                          .pairing = turn_.pairing,
                          .head_dim = spec().head_dim,
                          .magnitude = 1.5f};
      backend.turn_keys(cache->view(), kFirstLane, lanes(), turn_.first_slot, turn_.delta, rope);
    };
    return make_prepared(run, [this, cache, &backend] {
      Outputs outputs{cache->entries(0, 9), cache->entries(kFirstLane + lanes(), 9)};
      for (int32_t lane = 0; lane < lanes(); ++lane) outputs.push_back(turned_lane(*cache, lane));
      return outputs;
    });
  }

  std::vector<double> tolerance(const Outputs& expected, size_t output, Accuracy) const override {
    return turned_tolerance(expected[output], spec().dtypes[output - 2]);
  }

 private:
  Output turned_lane(const CaseCache& cache, int32_t lane) const {
    return cache.entries(kFirstLane + lane, spec().length,
                         {.first_slot = turn_.first_slot, .end_slot = spec().length, .dims = turn_.rotary_dims});
  }

  Turn turn_;
  std::vector<float> inv_freq_;
};

}  // namespace

void add_key_cases(OperationCases& cases) {
  constexpr RopePairing kPairings[] = {RopePairing::kAdjacent, RopePairing::kHalves};
  const auto add = [&](KeySpec spec, std::vector<Turn> turns) {
    for (const Turn& turn : turns) cases.push_back(std::make_unique<TurnKeysCase>(spec, turn));
    if (spec.columns == 0) spec.columns = spec.length;
    cases.push_back(std::make_unique<KeyNormsCase>(spec));
    cases.push_back(std::make_unique<ValueNormsCase>(spec));
    cases.push_back(std::make_unique<KeySimilarityCase>(std::move(spec)));
  };
  for (const EntryFormat& format : kEntryFormats.rows) {
    const KvDtype dtype = format.id;
    const std::string name = format.name;
    const std::vector<KvDtype> three(3, dtype);
    for (RopePairing pairing : kPairings) {
      add({.name = absl::StrCat(name, "_d64_", pairing == kPairings[0] ? 100 : 101),
           .dtypes = three,
           .length = pairing == kPairings[0] ? 100 : 101},
          {{.delta = 17, .pairing = pairing},
           {.first_slot = 37, .delta = -300, .pairing = pairing},
           {.first_slot = 4, .delta = -1, .pairing = pairing, .rotary_dims = 24},
           {.first_slot = 99, .delta = 0, .pairing = pairing}});
      add({.name = absl::StrCat(name, "_pages_of_3072_bytes_", pairing == kPairings[0] ? 61 : 97),
           .page_bytes = 3072,
           .dtypes = three,
           .length = pairing == kPairings[0] ? 61 : 97},
          {{.first_slot = 29, .delta = 5, .pairing = pairing}, {.first_slot = 61, .delta = 5, .pairing = pairing}});
      add({.name = absl::StrCat(name, "_d80_", pairing == kPairings[0] ? 33 : 70),
           .head_dim = 80,
           .dtypes = {dtype},
           .length = pairing == kPairings[0] ? 33 : 70},
          {{.delta = -64, .pairing = pairing, .rotary_dims = 80},
           {.delta = 100, .pairing = pairing, .rotary_dims = 32}});
    }
    add({.name = name + "_one", .dtypes = {dtype}, .length = 1}, {});
    add({.name = name + "_none", .dtypes = {dtype}, .length = 0}, {{.delta = 3}});
    add({.name = name + "_only_first", .dtypes = three, .length = 90, .columns = 53}, {});
    add({.name = name + "_large_pages", .page_bytes = 65536, .dtypes = {dtype, dtype}, .length = 1000},
        {{.delta = -7}});
    // Many blocks and pages; the depth of a prompt for one format, which is enough for times.
    const int32_t deep = dtype == KvDtype::kF16 ? 8000 : 1100;
    add({.name = absl::StrCat(name, "_", deep), .dtypes = three, .length = deep}, {{.first_slot = 4, .delta = -512}});
  }
  add({.name = "mixed", .dtypes = {KvDtype::kF16, KvDtype::kF32, KvDtype::kK8V4}, .length = 700},
      {{.first_slot = 20, .delta = -9}});
}

}  // namespace pkv
