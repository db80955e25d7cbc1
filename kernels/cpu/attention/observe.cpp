// Observation passes: log-sum-exps of a few query rows and the attention mass that lands on each slot, of scores that
// are made as prompt attention makes them. Work is split by (KV head, tile of slots), so each column's sum is made by
// one thread, rows ascending.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "kernels/check.h"
#include "kernels/cpu/attention/attention.h"
#include "kernels/cpu/parallel.h"

namespace pkv {
namespace {

// Bounds the packed queries and the per-tile results of one pass.
constexpr int32_t kChunkRows = 64;
// The same where nothing is kept of a tile: keys are packed for so many rows at a time.
constexpr int32_t kMassRows = 256;
// Scores that are kept between the two passes of observe(), in floats: what caches that cores share hold.
constexpr int64_t kKeptScores = int64_t{3} << 20;
// A query that is packed, and a tile's result that is merged, against an element read and written.
constexpr int64_t kPackedElement = 4;
constexpr int64_t kMergedElement = 64;

}  // namespace

// Some observation rows, packed into panels for every KV head.
struct CpuAttention::ObserveChunk {
  const PanelKernels& panels;
  int32_t first_row = 0;
  int32_t query_rows = 0;          // rows * G; query row m is row first_row + m / G, head m % G of the group
  int32_t padded_rows = 0;         // per KV head
  int32_t most_visible = 0;        // of any lane
  int32_t tiles = 0;               // of that many slots
  const float* queries = nullptr;  // [kv_heads][padded_rows / panel rows] panels of padded_dim(head_dim) * panel rows

  // Slots of a lane's tile at `start` that each row of the panel at `first` sees. Returns the largest.
  int32_t limits(const ObserveArgs& args, const Lane& lane, int32_t first, int32_t start, int32_t panel_rows,
                 int32_t* out) const {
    const int32_t group = args.q_heads / args.kv_heads;
    int32_t largest = 0;
    for (int32_t r = 0; r < panel_rows; ++r) {
      const int32_t m = first + r;
      const int32_t visible = m < query_rows ? args.visible(lane.length, first_row + m / group) : 0;
      out[r] = std::clamp(visible - start, 0, kTileSlots);
      largest = std::max(largest, out[r]);
    }
    return largest;
  }
};

// Which of a chunk's panels.
struct CpuAttention::ObservePanel {
  int32_t head = 0;   // KV head
  int32_t tile = 0;   // of the lane
  int32_t first = 0;  // its first query row
};

template <typename Body>
void CpuAttention::for_each_chunk(const ObserveArgs& args, const PanelKernels& panels, int32_t most, Body body) {
  const int32_t group = args.q_heads / args.kv_heads;
  const int32_t d = args.kv.head_dim;
  const int32_t total = static_cast<int32_t>(args.q.rows);
  int32_t longest = 0;
  for (int32_t head = 0; head < args.kv_heads; ++head) {
    longest = std::max(longest, args.kv.lanes[args.first_lane + head].length);
  }
  const int64_t keys = static_cast<int64_t>(kTileSlots) * (d + kMaxPanelCols);
  for (Scratch& scratch : per_thread_) scratch.reserve(keys + 2 * kMaxPanelRows * kScoreStride);

  for (int32_t first_row = 0; first_row < total; first_row += most) {
    const int32_t rows = std::min(most, total - first_row);
    ObserveChunk chunk{.panels = panels, .first_row = first_row, .query_rows = rows * group};
    chunk.padded_rows = (chunk.query_rows + panels.rows - 1) / panels.rows * panels.rows;
    chunk.most_visible = args.visible(longest, first_row + rows - 1);
    chunk.tiles = (chunk.most_visible + kTileSlots - 1) / kTileSlots;
    const int64_t head_floats = static_cast<int64_t>(chunk.padded_rows) * padded_dim(d);
    float* queries = shared_.reserve(head_floats * args.kv_heads);
    chunk.queries = queries;
    parallel_for(pool_, args.kv_heads, kPackedElement * head_floats, [&](int64_t head) {
      const float* pointers[kMaxPanelRows];
      const LanePages pages = lane_pages(args.kv, args.first_lane + static_cast<int32_t>(head));
      std::vector<float> mixed(static_cast<size_t>(panels.rows) * static_cast<size_t>(d));
      for (int32_t first = 0; first < chunk.query_rows; first += panels.rows) {
        const int32_t count = std::min(panels.rows, chunk.query_rows - first);
        for (int32_t r = 0; r < count; ++r) {
          const int32_t m = first + r;
          const float* query = args.q.f32_row(first_row + m / group) + (head * group + m % group) * d;
          pointers[r] = query_for(pages, query, mixed.data() + static_cast<int64_t>(r) * d);
        }
        panels.pack_queries(pointers, count, d, args.scale * std::numbers::log2e_v<float>,
                            queries + head * head_floats + static_cast<int64_t>(first) * padded_dim(d));
      }
    });
    body(chunk);
  }
}

template <typename Visit>
void CpuAttention::for_each_panel(const ObserveArgs& args, const ObserveChunk& chunk, Visit visit) {
  const int32_t panel_rows = chunk.panels.rows;
  const int32_t d = args.kv.head_dim;
  const int64_t work =
      elements_of_multiply_adds(static_cast<int64_t>(chunk.padded_rows) * d * std::min(kTileSlots, chunk.most_visible));
  parallel_for(pool_, static_cast<int64_t>(args.kv_heads) * chunk.tiles, work, [&](int64_t task, int32_t thread) {
    const auto head = static_cast<int32_t>(task / chunk.tiles), tile = static_cast<int32_t>(task % chunk.tiles);
    const int32_t start = tile * kTileSlots;
    const Lane& lane = args.kv.lanes[args.first_lane + head];
    float* scores = per_thread_[thread].reserve(0);
    float* keys = scores + 2 * kMaxPanelRows * kScoreStride;
    chunk.panels.pack_keys(lane_pages(args.kv, args.first_lane + head), start,
                           std::clamp(std::min(lane.length, chunk.most_visible) - start, 0, kTileSlots), /*place=*/0,
                           keys);
    for (int32_t first = 0; first < chunk.padded_rows; first += panel_rows) {
      int32_t limits[kMaxPanelRows];
      const int32_t seen = chunk.limits(args, lane, first, start, panel_rows, limits);
      visit(ObservePanel{.head = head, .tile = tile, .first = first},
            Panel{.queries = chunk.queries + (static_cast<int64_t>(head) * chunk.padded_rows + first) * padded_dim(d),
                  .keys = keys,
                  .limits = limits,
                  .head_dim = d,
                  .count = seen,
                  .scores = scores});
    }
  });
}

// What a chunk's panels found over each tile: [kv_heads][tiles][padded_rows] maxima, then as many sums.
struct CpuAttention::TilePartials {
  const ObserveChunk& chunk;
  float* tops;
  float* sums;

  TilePartials(const ObserveChunk& of, int32_t kv_heads, Scratch& scratch) : chunk(of) {
    const int64_t count = static_cast<int64_t>(kv_heads) * of.tiles * of.padded_rows;
    tops = scratch.reserve(2 * count);
    sums = tops + count;
  }
  int64_t at(int32_t head, int32_t tile, int32_t m) const {
    return (static_cast<int64_t>(head) * chunk.tiles + tile) * chunk.padded_rows + m;
  }
  // The row's log-sum-exp over all tiles.
  float merged(int32_t head, int32_t m) const {
    float top = -std::numeric_limits<float>::infinity();
    float sum = 0.0f;
    for (int32_t tile = 0; tile < chunk.tiles; ++tile) {
      const int64_t place = at(head, tile, m);
      if (sums[place] == 0.0f) continue;
      const float next = std::max(top, tops[place]);
      sum = sum * std::exp2(top - next) + sums[place] * std::exp2(tops[place] - next);
      top = next;
    }
    return top * std::numbers::ln2_v<float> + std::log(sum);
  }
};

void CpuAttention::merge_tiles(const ObserveArgs& args, const TilePartials& partials, const TensorView& lse) {
  const ObserveChunk& chunk = partials.chunk;
  const int32_t group = args.q_heads / args.kv_heads;
  parallel_for(pool_, args.kv_heads, kMergedElement * chunk.tiles * chunk.query_rows, [&](int64_t head) {
    for (int32_t m = 0; m < chunk.query_rows; ++m) {
      lse.f32_row(chunk.first_row + m / group)[head * group + m % group] =
          partials.merged(static_cast<int32_t>(head), m);
    }
  });
}

void CpuAttention::row_lse(const ObserveArgs& args, const TensorView& lse) { row_lse_by(panels_, args, lse); }

void CpuAttention::row_lse_by(const PanelKernels& panels, const ObserveArgs& args, const TensorView& lse) {
  for_each_chunk(args, panels, kChunkRows, [&](const ObserveChunk& chunk) {
    const TilePartials partials(chunk, args.kv_heads, partials_);
    for_each_panel(args, chunk, [&](const ObservePanel& place, const Panel& panel) {
      const int64_t at = partials.at(place.head, place.tile, place.first);
      panels.lse(panel, partials.tops + at, partials.sums + at);
    });
    merge_tiles(args, partials, lse);
  });
}

// Where a panel's rows add their weights; their `lse` is still to be filled in.
struct CpuAttention::MassRows {
  float lse[kMaxPanelRows] = {};  // log2 units
  float* sums[kMaxPanelRows] = {};
  float* squares[kMaxPanelRows] = {};
  bool squared = false;

  MassRows(const ObserveChunk& chunk, const ObservePanel& place, int32_t group, const TensorView& all_sums,
           const TensorView& all_squares)
      : squared(all_squares.data != nullptr) {
    const int32_t start = place.tile * kTileSlots;
    for (int32_t r = 0; r < kMaxPanelRows && place.first + r < chunk.query_rows; ++r) {
      const int32_t q_head = place.head * group + (place.first + r) % group;
      sums[r] = all_sums.f32_row(q_head) + start;
      if (squared) squares[r] = all_squares.f32_row(q_head) + start;
    }
  }
  void read_lse(const ObserveChunk& chunk, const ObservePanel& place, int32_t group, const TensorView& all) {
    for (int32_t r = 0; r < kMaxPanelRows && place.first + r < chunk.query_rows; ++r) {
      const int32_t m = place.first + r;
      const float* of_row = all.f32_row(chunk.first_row + m / group);
      lse[r] = of_row[place.head * group + m % group] * std::numbers::log2e_v<float>;
    }
  }
  PanelMass mass() const { return {.lse = lse, .sums = sums, .squares = squared ? squares : nullptr}; }
};

void CpuAttention::column_mass(const ObserveArgs& args, const TensorView& lse, const TensorView& sums,
                               const TensorView& squares) {
  column_mass_by(panels_, args, lse, sums, squares);
}

void CpuAttention::column_mass_by(const PanelKernels& panels, const ObserveArgs& args, const TensorView& lse,
                                  const TensorView& sums, const TensorView& squares) {
  const int32_t group = args.q_heads / args.kv_heads;
  for_each_chunk(args, panels, kMassRows, [&](const ObserveChunk& chunk) {
    for_each_panel(args, chunk, [&](const ObservePanel& place, const Panel& panel) {
      MassRows rows(chunk, place, group, sums, squares);
      rows.read_lse(chunk, place, group, lse);
      panels.mass(panel, rows.mass());
    });
  });
}

// A row that sees less than the newest one adds its weights that much further. So tiles overlap in what they add to:
// each adds to a part of its own, and these are added up in order.
void CpuAttention::diagonal_mass(const ObserveArgs& args, const TensorView& lse, const TensorView& sums) {
  constexpr int32_t kPart = kTileSlots + kChunkRows;
  const int32_t group = args.q_heads / args.kv_heads;
  for_each_chunk(args, panels_, kChunkRows, [&](const ObserveChunk& chunk) {
    const int32_t last_row = chunk.first_row + chunk.query_rows / group - 1;
    const auto further = [&](int32_t length, int32_t row) {
      return args.visible(length, last_row) - args.visible(length, row);
    };
    const TensorView parts{weights_.reserve(static_cast<int64_t>(args.q_heads) * chunk.tiles * kPart), DType::kF32,
                           args.q_heads, static_cast<int64_t>(chunk.tiles) * kPart,
                           static_cast<int64_t>(chunk.tiles) * kPart};
    parallel_for(pool_, args.q_heads, parts.cols,
                 [&](int64_t head) { std::fill_n(parts.f32_row(head), parts.cols, 0.0f); });
    for_each_panel(args, chunk, [&](const ObservePanel& place, const Panel& panel) {
      const int32_t length = args.kv.lanes[args.first_lane + place.head].length;
      MassRows rows(chunk, place, group, parts, {});
      rows.read_lse(chunk, place, group, lse);
      for (int32_t r = 0; r < panels_.rows && place.first + r < chunk.query_rows; ++r) {
        rows.sums[r] += place.tile * kChunkRows + further(length, chunk.first_row + (place.first + r) / group);
      }
      panels_.mass(panel, rows.mass());
    });
    parallel_for(pool_, args.q_heads, parts.cols, [&](int64_t head) {
      const int32_t visible = args.visible(args.kv.lanes[args.first_lane + head / group].length, last_row);
      for (int32_t tile = 0; tile < chunk.tiles && tile * kTileSlots < visible; ++tile) {
        const int32_t start = tile * kTileSlots;
        const float* part = parts.f32_row(head) + static_cast<int64_t>(tile) * kPart;
        float* out = sums.f32_row(head) + sums.cols - visible + start;
        for (int32_t i = 0; i < std::min(kPart, visible - start); ++i) out[i] += part[i];
      }
    });
  });
}

void CpuAttention::observe(const ObserveArgs& args, const TensorView& lse, const TensorView& sums,
                           const TensorView& squares) {
  observe_by(panels_, args, lse, sums, squares);
}

void CpuAttention::observe_exactly(const ObserveArgs& args, const TensorView& lse, const TensorView& sums) {
  observe_by(kernels_.panel, args, lse, sums, {});
}

void CpuAttention::observe_by(const PanelKernels& panels, const ObserveArgs& args, const TensorView& lse,
                              const TensorView& sums, const TensorView& squares) {
  const int32_t group = args.q_heads / args.kv_heads, panel_rows = panels.rows;
  int32_t longest = 0;
  for (int32_t head = 0; head < args.kv_heads; ++head) {
    longest = std::max(longest, args.kv.lanes[args.first_lane + head].length);
  }
  const int64_t tiles = (longest + kTileSlots - 1) / kTileSlots;
  const int64_t row_scores = std::max<int64_t>(1, args.kv_heads * tiles * group * kScoreStride);
  const auto most = static_cast<int32_t>(std::min<int64_t>(kChunkRows, kKeptScores / row_scores));
  if (most * group < 3 * panel_rows) {  // keys would be packed for too few rows at a time
    row_lse_by(panels, args, lse);
    column_mass_by(panels, args, lse, sums, squares);
    return;
  }
  for_each_chunk(args, panels, most, [&](const ObserveChunk& chunk) {
    const TilePartials partials(chunk, args.kv_heads, partials_);
    float* kept =
        weights_.reserve(static_cast<int64_t>(args.kv_heads) * chunk.tiles * chunk.padded_rows * kScoreStride);
    for_each_panel(args, chunk, [&](const ObservePanel& place, const Panel& panel) {
      const int64_t at = partials.at(place.head, place.tile, place.first);
      Panel own = panel;
      own.scores = kept + at * kScoreStride;
      panels.lse(own, partials.tops + at, partials.sums + at);
    });
    merge_tiles(args, partials, lse);
    const int64_t work = elements_of_multiply_adds(static_cast<int64_t>(chunk.padded_rows) * kTileSlots);
    parallel_for(pool_, static_cast<int64_t>(args.kv_heads) * chunk.tiles, work, [&](int64_t task) {
      const auto head = static_cast<int32_t>(task / chunk.tiles), tile = static_cast<int32_t>(task % chunk.tiles);
      const Lane& lane = args.kv.lanes[args.first_lane + head];
      for (int32_t first = 0; first < chunk.padded_rows; first += panel_rows) {
        const ObservePanel place{.head = head, .tile = tile, .first = first};
        int32_t limits[kMaxPanelRows];
        const int32_t seen = chunk.limits(args, lane, first, tile * kTileSlots, panel_rows, limits);
        MassRows rows(chunk, place, group, sums, squares);
        for (int32_t r = 0; r < panel_rows && first + r < chunk.query_rows; ++r) {
          const int32_t m = first + r;
          const float* of_row = lse.f32_row(chunk.first_row + m / group);
          rows.lse[r] = of_row[head * group + m % group] * std::numbers::log2e_v<float> -
                        partials.tops[partials.at(head, tile, m)];
        }
        panels.add_weights({.limits = limits,
                            .head_dim = args.kv.head_dim,
                            .count = seen,
                            .scores = kept + partials.at(head, tile, first) * kScoreStride},
                           rows.mass());
      }
    });
  });
}

}  // namespace pkv
