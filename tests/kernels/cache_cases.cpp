// Cases of write_kv and gather: every entry format, and from one to another, pages of 40, 16, 12, 8 and fewer slots,
// ragged lanes, appends over page borders, overwritten slots, entries moved in any order. What comes out are bits, and
// all of the pool is compared.
#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/check.h"
#include "tests/kernels/case_data.h"

namespace pkv {
namespace {

// ---- write_kv

// A sequence of the step: `rows` rows appended to lanes of the given lengths, or written over slots in use.
struct WriteSequence {
  int32_t rows = 1;
  std::vector<int32_t> lengths;   // [kv_heads] entries before
  int32_t overwritten_slot = -1;  // the first; counted round in lanes that are shorter
};

struct WriteSpec {
  std::string name;
  int32_t head_dim = 64;
  int32_t page_bytes = 4096;
  std::vector<KvDtype> dtypes;  // [kv_heads]
  std::vector<WriteSequence> sequences;
  int32_t rows_between = 0;  // rows of the step that belong to no sequence
};

class WriteCase : public OperationCase {
 public:
  explicit WriteCase(WriteSpec spec) : OperationCase(absl::StrCat("write_kv/", spec.name)), spec_(std::move(spec)) {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    struct State {
      CaseTensor k, v;
      BackendArray<int32_t> positions;
      BackendArray<RowSpan> spans;
      std::unique_ptr<CaseCache> cache;
    };
    auto state = std::make_shared<State>();
    auto random = rng();
    const auto kv_heads = static_cast<int32_t>(spec_.dtypes.size());
    CacheSpec cache{.head_dim = spec_.head_dim, .page_bytes = spec_.page_bytes};
    std::vector<RowSpan> spans;
    std::vector<int32_t> positions;
    int32_t rows = 0;
    for (const WriteSequence& sequence : spec_.sequences) {
      PKV_CHECK(sequence.lengths.size() == spec_.dtypes.size(), "a length for each lane");
      spans.push_back(
          {.first_row = rows, .rows = sequence.rows, .first_lane = static_cast<int32_t>(cache.lanes.size())});
      rows += sequence.rows + spec_.rows_between;
      for (size_t g = 0; g < spec_.dtypes.size(); ++g) cache.lanes.push_back(make_lane(sequence, g));
    }
    for (int32_t r = 0; r < rows; ++r) positions.push_back(100 + 3 * r);
    state->spans = {backend, spans};
    state->positions = {backend, positions};
    Matrix keys = random_matrix(random, rows, static_cast<int64_t>(kv_heads) * spec_.head_dim);
    const Matrix values = random_matrix(random, keys.rows, keys.cols, 100.0f);
    // Around the limits of f16: rounding to infinity, the largest value, subnormals, halfway cases, negative zero.
    const float special[] = {65520.0f, 65519.0f, -1e6f, 6e-8f, 3e-8f, 2e-8f, 1.00048828125f, 1.00146484375f, -0.0f};
    for (size_t i = 0; i < keys.values.size() && rows > 0; i += 7) keys.values[i] = special[i / 7 % std::size(special)];
    state->k = CaseTensor(backend, keys, Placement::kStrided);
    state->v = CaseTensor(backend, values, Placement::kStrided);
    state->cache = std::make_unique<CaseCache>(backend, CacheContent(random, std::move(cache)));
    return make_prepared(
        [state, kv_heads, &backend] {
          backend.write_kv(state->k.view(), state->v.view(), state->positions.data(), state->cache->view(),
                           row_spans(state->spans), kv_heads);
        },
        [state, &backend] { return state->cache->everything(); });
  }

 private:
  CaseLane make_lane(const WriteSequence& sequence, size_t g) const {
    const int32_t length = sequence.lengths[g];
    if (sequence.overwritten_slot >= 0) {
      return {.filled = length,
              .lane = {.length = length,
                       .write_slot = sequence.overwritten_slot % (length - sequence.rows + 1),
                       .visible = length,
                       .dtype = spec_.dtypes[g]}};
    }
    return {
        .filled = length,
        .lane = {
            .length = length + sequence.rows, .write_slot = length, .visible = length + 1, .dtype = spec_.dtypes[g]}};
  }
  WriteSpec spec_;
};

void add_write_cases(OperationCases& cases) {
  const auto add = [&](WriteSpec spec) { cases.push_back(std::make_unique<WriteCase>(std::move(spec))); };
  constexpr KvDtype kHalf = KvDtype::kF16, kFull = KvDtype::kF32;
  for (const EntryFormat& format : kEntryFormats.rows) {
    const KvDtype dtype = format.id;
    const std::string name = format.name;
    const std::vector<KvDtype> three(3, dtype);
    add({.name = name + "/decode_ragged",
         .dtypes = three,
         .sequences = {{1, {0, 15, 16}}, {1, {100, 31, 7}}, {1, {8, 8, 8}}},
         .rows_between = 1});
    add({.name = name + "/prefill_from_empty", .dtypes = three, .sequences = {{40, {0, 0, 0}}, {1, {5, 5, 5}}}});
    add({.name = name + "/prefill_ragged",
         .dtypes = three,
         .sequences = {{33, {13, 64, 1}}, {0, {4, 5, 6}}, {70, {0, 9, 3}}}});
    add({.name = name + "/overwrite", .dtypes = three, .sequences = {{1, {30, 9, 17}, 20}, {1, {3, 3, 3}}}});
    add({.name = name + "/overwrite_front", .dtypes = three, .sequences = {{20, {50, 21, 20}, 0}, {1, {9, 9, 9}}}});
    add({.name = name + "/overwrite_middle",
         .page_bytes = 3072,
         .dtypes = three,
         .sequences = {{25, {60, 47, 33}, 7}, {3, {40, 3, 4}, 37}}});
    add({.name = name + "/pages_of_3072_bytes",
         .page_bytes = 3072,
         .dtypes = three,
         .sequences = {{29, {11, 12, 13}}}});
    add({.name = name + "/d80", .head_dim = 80, .dtypes = {dtype}, .sequences = {{30, {5}}, {1, {11}}}});
    add({.name = name + "/d128", .head_dim = 128, .dtypes = {dtype, dtype}, .sequences = {{9, {5, 0}}, {1, {7, 8}}}});
    add({.name = name + "/nothing", .dtypes = three, .sequences = {}, .rows_between = 0});
    add({.name = name + "/large", .dtypes = three, .sequences = {{512, {1000, 500, 0}}}});
  }
  add({.name = "mixed/ragged",
       .dtypes = {kHalf, kFull, KvDtype::kK8V4},
       .sequences = {{20, {3, 4, 50}}, {1, {7, 8, 15}}}});
}

// ---- gather

enum class Order : uint8_t { kAscending, kRandom };

struct GatherSpec {
  std::string name;
  int32_t head_dim = 64;
  int32_t page_bytes = 4096;
  std::vector<KvDtype> dtypes;  // a lane each
  int32_t length = 0;
  std::vector<int32_t> counts;  // of every lane
  Order order = Order::kAscending;
  bool to_other_lanes = false;
};

std::string gather_name(const GatherSpec& spec) {
  return absl::StrCat("gather/", spec.name, "/", absl::StrJoin(spec.counts, "_"), "_of_", spec.length,
                      spec.order == Order::kRandom ? "_random" : "_ascending",
                      spec.to_other_lanes ? "_to_other_lanes" : "");
}

class GatherCase : public OperationCase {
 public:
  explicit GatherCase(GatherSpec spec) : OperationCase(gather_name(spec)), spec_(std::move(spec)) {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    struct State {
      CaseTensor kept, counts;
      std::unique_ptr<CaseCache> cache;
    };
    auto state = std::make_shared<State>();
    auto random = rng();
    // The lanes that take part lie between others, which must not change.
    const auto lane = [&](int32_t filled, int32_t length, KvDtype dtype) {
      return CaseLane{.filled = filled,
                      .lane = {.length = length, .write_slot = length, .visible = length, .dtype = dtype}};
    };
    const CaseLane neighbour = lane(21, 21, KvDtype::kF16);
    CacheSpec cache{.head_dim = spec_.head_dim, .page_bytes = spec_.page_bytes, .lanes = {neighbour}};
    for (const KvDtype dtype : spec_.dtypes) cache.lanes.push_back(lane(spec_.length, spec_.length, dtype));
    cache.lanes.push_back(neighbour);
    for (size_t g = 0; g < spec_.dtypes.size(); ++g) {
      cache.lanes.push_back(lane(std::min(spec_.counts[g], 5), spec_.counts[g] + 3, spec_.dtypes[g]));
    }
    cache.lanes.push_back(neighbour);
    state->cache = std::make_unique<CaseCache>(backend, CacheContent(random, std::move(cache)));
    std::vector<int32_t> kept;
    for (const int32_t count : spec_.counts) {
      std::vector<int32_t> slots(static_cast<size_t>(spec_.length));
      std::iota(slots.begin(), slots.end(), 0);
      std::shuffle(slots.begin(), slots.end(), random);
      if (spec_.order == Order::kAscending) std::sort(slots.begin(), slots.begin() + count);
      kept.insert(kept.end(), slots.begin(), slots.end());
    }
    state->kept = CaseTensor(backend, lanes(), spec_.length, kept);
    state->counts = CaseTensor(backend, 1, lanes(), spec_.counts);
    return make_prepared(
        [state, this, &backend] {
          backend.gather(state->cache->view(), kFrom, state->kept.view(), state->counts.view(),
                         spec_.to_other_lanes ? kFrom + lanes() + 1 : kFrom);
        },
        [state, &backend] { return state->cache->everything(); });
  }

 private:
  static constexpr int32_t kFrom = 1;
  int32_t lanes() const { return static_cast<int32_t>(spec_.dtypes.size()); }
  GatherSpec spec_;
};

// Entries of one format come to lanes of another: to the same pages, and to others.
struct ConvertSpec {
  std::string name;
  int32_t head_dim = 64;
  int32_t page_bytes = 4096;
  KvDtype from = KvDtype::kF16, to = KvDtype::kK8V4;
  int32_t length = 0;
  std::vector<int32_t> counts;  // of every lane
  bool in_place = true;
};

class ConvertCase : public OperationCase {
 public:
  explicit ConvertCase(ConvertSpec spec)
      : OperationCase(absl::StrCat("gather/", entry_format(spec.from).name, "_to_", entry_format(spec.to).name, "_",
                                   spec.name, spec.in_place ? "_in_place" : "_to_other_lanes")),
        spec_(std::move(spec)) {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    struct State {
      CaseTensor kept, counts;
      std::unique_ptr<CaseCache> cache;
    };
    auto state = std::make_shared<State>();
    auto random = rng();
    const auto lane = [&](int32_t filled, int32_t length, KvDtype dtype) {
      return CaseLane{.filled = filled, .lane = {.length = length, .visible = length, .dtype = dtype}};
    };
    CacheSpec cache{.head_dim = spec_.head_dim, .page_bytes = spec_.page_bytes};
    for (size_t g = 0; g < spec_.counts.size(); ++g)
      cache.lanes.push_back(lane(spec_.length, spec_.length, spec_.from));
    for (const int32_t count : spec_.counts) cache.lanes.push_back(lane(0, spec_.in_place ? 0 : count, spec_.to));
    cache.lanes.push_back(lane(21, 21, KvDtype::kK8V4));  // a neighbour, which must not change
    CacheContent content(random, std::move(cache));
    for (size_t g = 0; g < spec_.counts.size() && spec_.in_place; ++g) {
      Lane& target = content.lanes[spec_.counts.size() + g];
      target.first_page = content.lanes[g].first_page;
      target.length = spec_.length;
    }
    state->cache = std::make_unique<CaseCache>(backend, content);
    std::vector<int32_t> kept;
    for (const int32_t count : spec_.counts) {
      std::vector<int32_t> slots(static_cast<size_t>(spec_.length));
      std::iota(slots.begin(), slots.end(), 0);
      std::shuffle(slots.begin(), slots.end(), random);
      std::sort(slots.begin(), slots.begin() + count);
      kept.insert(kept.end(), slots.begin(), slots.end());
    }
    state->kept = CaseTensor(backend, lanes(), spec_.length, kept);
    state->counts = CaseTensor(backend, 1, lanes(), spec_.counts);
    return make_prepared(
        [state, this, &backend] {
          backend.gather(state->cache->view(), 0, state->kept.view(), state->counts.view(), lanes());
        },
        [state, &backend] { return state->cache->everything(); });
  }

 private:
  int32_t lanes() const { return static_cast<int32_t>(spec_.counts.size()); }
  ConvertSpec spec_;
};

void add_convert_cases(OperationCases& cases) {
  const auto add = [&](ConvertSpec spec) {
    cases.push_back(std::make_unique<ConvertCase>(spec));
    spec.in_place = false;
    cases.push_back(std::make_unique<ConvertCase>(std::move(spec)));
  };
  for (const KvDtype from : {KvDtype::kF16, KvDtype::kF32, KvDtype::kBF16}) {
    add({.name = "some", .from = from, .length = 100, .counts = {37, 100, 1}});
    add({.name = "none", .from = from, .length = 5, .counts = {0, 3}});
    add({.name = "d80_pages_of_3072_bytes",
         .head_dim = 80,
         .page_bytes = 3072,
         .from = from,
         .length = 90,
         .counts = {90, 40}});
    add({.name = "d8", .head_dim = 8, .page_bytes = 256, .from = from, .length = 50, .counts = {50}});
  }
  add({.name = "long", .length = 2500, .counts = {2500, 900, 1700}});
  add({.name = "halves", .from = KvDtype::kF32, .to = KvDtype::kF16, .length = 70, .counts = {70, 9}});
}

class SetPageIdsCase : public OperationCase {
 public:
  SetPageIdsCase() : OperationCase("set_page_ids/some") {}

  std::unique_ptr<PreparedCase> prepare(Backend& backend) const override {
    struct State {
      CaseTensor page_ids;
      BackendArray<PageEdit> edits;
    };
    auto state = std::make_shared<State>();
    state->page_ids = CaseTensor(backend, 1, 6, std::vector<int32_t>{10, 11, 12, 13, 14, 15});
    state->edits = {backend, {{.at = 4, .page = 7}, {.at = 0, .page = 2}, {.at = 5, .page = 5}}};
    return make_prepared(
        [state, &backend] { backend.set_page_ids(state->page_ids.view().i32(), state->edits.data(), 2); },
        [state, &backend] { return Outputs{state->page_ids.integers(backend, "page_ids")}; });
  }
};

}  // namespace

void add_cache_cases(OperationCases& cases) {
  cases.push_back(std::make_unique<SetPageIdsCase>());
  add_write_cases(cases);
  const auto add = [&](GatherSpec spec) {
    cases.push_back(std::make_unique<GatherCase>(spec));
    spec.order = Order::kRandom;
    cases.push_back(std::make_unique<GatherCase>(spec));
    spec.to_other_lanes = true;
    cases.push_back(std::make_unique<GatherCase>(std::move(spec)));
  };
  for (const EntryFormat& format : kEntryFormats.rows) {
    const KvDtype dtype = format.id;
    const std::string name = absl::StrCat(format.name, "_");
    const std::vector<KvDtype> one = {dtype}, three(3, dtype);
    add({.name = name + "d64", .dtypes = three, .length = 100, .counts = {37, 100, 1}});
    add({.name = name + "all", .dtypes = three, .length = 50, .counts = {50, 50, 50}});
    add({.name = name + "one", .dtypes = one, .length = 33, .counts = {1}});
    add({.name = name + "none", .dtypes = three, .length = 5, .counts = {0, 3, 0}});
    add({.name = name + "pages_of_3072_bytes", .page_bytes = 3072, .dtypes = one, .length = 200, .counts = {120}});
    add({.name = name + "all_pages_of_3072_bytes", .page_bytes = 3072, .dtypes = one, .length = 131, .counts = {131}});
    add({.name = name + "d80", .head_dim = 80, .dtypes = {dtype, dtype}, .length = 64, .counts = {40, 41}});
    add({.name = name + "d128", .head_dim = 128, .dtypes = one, .length = 64, .counts = {9}});
    add({.name = name + "long", .dtypes = one, .length = 8000, .counts = {900}});
  }
  add({.name = "mixed", .dtypes = {KvDtype::kF32, KvDtype::kK8V4}, .length = 90, .counts = {31, 60}});
  add_convert_cases(cases);
}

}  // namespace pkv
