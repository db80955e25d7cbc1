// The one interface between the server and the machine: coarse operations on views, in stream order. The caller
// guarantees shapes. Implementations: reference (plain loops; the oracle), cpu (SIMD, threads), cuda. There is no
// silent fallback from one to another.
//
// Every pointer in an operation is backend memory: it came from this backend's allocate(), allocate_lazy() or
// allocate_staged(). Counts go by value. The host reaches that memory through upload(), fill(), copy(), commit() and
// fetch() alone, even where the two are the same memory. Lifetimes, once for all of them:
//
//   what upload() and commit() read   is read before they return: the host may change or free it at once
//   what fetch() writes               is there when it returns, and with it everything that was asked for before it
//   backend memory                    may be given back while operations that use it are still to come in stream order;
//                                     whoever gets it next comes after them
//   argument structs                  are read before the operation returns; memory they point to, in stream order
//
// Shapes: R rows of the step, D model width, Hq query heads, Hkv KV heads, d head size, G = Hq / Hkv, V vocabulary.
// All activations are float32.
//
// The batch does not change the answer: for a given Phase a row's result depends on that row alone, not on the number
// of rows, threads or neighbours. Attention walks a lane in tiles of a fixed number of slots counted from the lane's
// start and merges them in order.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/check.h"
#include "kernels/entry_format.h"
#include "kernels/entry_score.h"
#include "kernels/eviction.h"
#include "kernels/kv_view.h"
#include "kernels/operation_args.h"
#include "kernels/quant.h"
#include "kernels/sampling.h"
#include "kernels/tensor.h"

namespace pkv {

// A weight matrix as a GGUF file holds it: `rows` outputs by `cols` inputs, row after row.
struct WeightSource {
  const void* data = nullptr;
  WeightType type = WeightType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  // Products of prompts with it may take activations quantised to 8 bits, in the fast mode. What that costs a model
  // depends on what the product is for (ADR 51).
  bool tolerant = false;
};

// A weight matrix in a backend's own layout. Immutable. Made by Backend::prepare_weight and used only with that
// backend.
class Weight {
 public:
  Weight(int64_t rows, int64_t cols) : rows_(rows), cols_(cols) {}
  virtual ~Weight() = default;
  Weight(const Weight&) = delete;
  Weight& operator=(const Weight&) = delete;
  int64_t rows() const { return rows_; }  // outputs
  int64_t cols() const { return cols_; }  // inputs
  virtual size_t bytes() const = 0;

 private:
  int64_t rows_, cols_;
};

// A read of backend memory: view -> dense host rows.
struct Fetch {
  void* to = nullptr;
  TensorView from;
};

// What a backend wants where nobody asks for something else.
struct BackendTraits {
  int32_t page_bytes = 4096;   // of a cache page
  int32_t prefill_rows = 256;  // of a prompt, computed together
  int32_t step_rows = 3;       // of a prompt, through a model, in the time of a decode step of one row
  int32_t unit_rows = 8;       // of a prompt, through a layer, in the time that fewer take, too: the weights are read
  int32_t decode_rows = 1;     // decode steps have a multiple of so many rows; the last may be nobody's
  bool sparse_attention = false;  // attend() knows patterns, and there are the operations that choose them
};

// What a backend has taken of a memory that is not the machine's own: bytes now. used = weights + lazy + tensors +
// staged + what operations need between their kernels.
struct DeviceMemory {
  uint64_t weights = 0;   // of prepare_weight()
  uint64_t lazy = 0;      // of allocate_lazy(): the cache's pool
  uint64_t tensors = 0;   // of allocate()
  uint64_t staged = 0;    // of allocate_staged(), the device's side
  uint64_t used = 0;      // in all
  uint64_t reserved = 0;  // that the device has given to this process: used, and what is kept for the next who ask
  uint64_t pinned = 0;    // of the machine's own memory, for transfers
};

// What a backend remembers of operations that were asked for together: Backend::replay().
class Recording {
 public:
  Recording() = default;
  virtual ~Recording() = default;
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
};

// What a model wants of attention.
struct AttentionShape {
  int32_t q_heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string_view name() const = 0;    // reference, cpu, cuda
  virtual std::string description() const = 0;  // for people: device, instruction-set paths, threads
  virtual BackendTraits traits() const { return {}; }
  // UNIMPLEMENTED saying what it cannot compute. Asked when a model is loaded; the operations then rely on it.
  virtual absl::Status supports(const AttentionShape&) const { return absl::OkStatus(); }
  // The first error of the machine. It stays: from then on operations do nothing, and what is read is zeros. OK for
  // ever where no operation can fail.
  virtual absl::Status status() const { return absl::OkStatus(); }
  // None where memory is the machine's own. Any thread.
  virtual std::optional<DeviceMemory> device_memory() const { return std::nullopt; }

  // ---- memory (lifetimes: above)
  // Uninitialised [rows, cols], its rows without gaps. RESOURCE_EXHAUSTED when the machine has no such memory.
  virtual absl::StatusOr<Tensor> allocate(int64_t rows, int64_t cols, DType dtype) = 0;
  // `bytes` of zeros that cost no physical memory until they are touched; 4096-aligned.
  virtual absl::StatusOr<std::shared_ptr<std::byte>> allocate_lazy(size_t bytes) = 0;
  // `bytes` that the host writes and operations read, at the same places as long as they live; 64-aligned, zeros.
  // Operations may write to the device's side, and a later commit of those bytes overwrites that.
  virtual absl::StatusOr<Staged> allocate_staged(size_t bytes) = 0;
  // The host's bytes [offset, offset + bytes) become the device's.
  virtual void commit(const Staged& staged, size_t offset, size_t bytes) = 0;
  virtual void upload(const TensorView& to, const void* from) = 0;      // dense host rows -> view
  virtual void fill(const TensorView& to, float value) = 0;             // float32
  virtual void copy(const TensorView& to, const TensorView& from) = 0;  // equal shapes
  // All reads with one wait.
  virtual void fetch(std::span<const Fetch> reads) = 0;
  void fetch(const Fetch& read) { fetch(std::span(&read, 1)); }
  virtual void sync() = 0;
  // `source` must stay valid as long as the weight (a memory-mapped file).
  virtual absl::StatusOr<std::unique_ptr<Weight>> prepare_weight(const WeightSource& source) = 0;

  // ---- operations that are asked for again and again
  // Does what `record` asks for: by calling it, or from what it asked for at an earlier call with the same `recording`.
  // That is null at first, belongs to this backend, and goes before it. `record` asks for the same every time:
  // operations on the same memory with the same arguments, whatever that memory holds; and for nothing of the sections
  // "memory" and "time" but fill() and copy().
  virtual void replay(std::unique_ptr<Recording>& /*recording*/, const std::function<void()>& record) { record(); }

  // ---- time
  // A moment between the operations asked for before it and those after, and the seconds from one to a later one: asked
  // for after a fetch() that followed both. As here where operations are done when they return.
  virtual int64_t mark() { return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1); }
  virtual double elapsed(int64_t from, int64_t to) const { return 1e-9 * static_cast<double>(to - from); }

  // ---- the host's own work
  // Calls body(item, thread) for every item of [0, items), 0 <= thread < host_threads(), and returns when all are done;
  // in parallel where they are worth it: an item is about `work` numbers read, changed and written. What an item
  // computes must not depend on the thread. Bodies ask the backend for nothing.
  using HostBody = absl::FunctionRef<void(int64_t item, int32_t thread)>;
  virtual int32_t host_threads() const { return 1; }
  virtual void run_on_host(int64_t items, int64_t /*work*/, HostBody body) {
    for (int64_t item = 0; item < items; ++item) body(item, 0);
  }

  // ---- dense operations
  // out[r] = table[ids[r]], dequantised. ids [R], out [R, D].
  virtual void embed(const Weight& table, const int32_t* ids, const TensorView& out) = 0;
  // out[r] = x[r] / sqrt(mean(x[r]^2) + eps) * gain. x, out [R, D], gain [1, D]; out may be x. (RMSNorm, arXiv
  // 1910.07467, eq. 4)
  virtual void rms_norm(const TensorView& x, const TensorView& gain, float eps, const TensorView& out) = 0;
  // out = x W^T (+ out when `accumulate`). x [R, W.cols], out [R, W.rows].
  virtual void linear(const TensorView& x, const Weight& weight, bool accumulate, Phase phase,
                      const TensorView& out) = 0;
  // x[r] += bias. x [R, N], bias [1, N].
  virtual void add_bias(const TensorView& x, const TensorView& bias) = 0;
  // Rotates every head of x [R, heads * d] in place by its row's position [R].
  virtual void rope(const TensorView& x, const int32_t* positions, const RopeSpec& spec) = 0;
  // Rotates every head of x by `delta` more positions, as turn_keys() does keys.
  virtual void turn_rows(const TensorView& x, int32_t delta, const RopeSpec& spec) = 0;
  // gate = silu(gate) * up. [R, F]. (SwiGLU, arXiv 2002.05202, eq. 6)
  virtual void silu_mul(const TensorView& gate, const TensorView& up) = 0;

  // ---- cache and attention
  // page_ids[edits[i].at] = edits[i].page, i < count. A place may be there twice, then with the same page.
  virtual void set_page_ids(int32_t* page_ids, const PageEdit* edits, int32_t count) = 0;
  // Writes the rows' keys and values (k, v [R, Hkv * d]) and positions [R] to the lanes' write slots.
  virtual void write_kv(const TensorView& k, const TensorView& v, const int32_t* positions, const KvView& kv,
                        const RowSpans& spans, int32_t kv_heads) = 0;
  // Causal attention of each row over the slots it sees; optionally its log-sum-exp.
  virtual void attend(const AttendArgs& args) = 0;

  // ---- observation and selection
  // lse [R, Hq] of each observation row. Here and below scores are float32, or rounded as attend() rounds a prompt's.
  virtual void row_lse(const ObserveArgs& args, const TensorView& lse) = 0;
  // sums[h, j] += sum over rows r that see slot j of exp(scale * q_r,h . k_j - lse[r, h]). sums [Hq, columns]; slots
  // are columns. `squares`, when its data is not null, gets the sums of squares likewise.
  virtual void column_mass(const ObserveArgs& args, const TensorView& lse, const TensorView& sums,
                           const TensorView& squares) = 0;
  // row_lse(), and column_mass() by what it found: the scores of rows and keys may be computed once for both.
  virtual void observe(const ObserveArgs& args, const TensorView& lse, const TensorView& sums,
                       const TensorView& squares) {
    row_lse(args, lse);
    column_mass(args, lse, sums, squares);
  }

  // ---- sparse attention (sparse_attention.h): only where traits() say so
  // sums[h, columns - 1 - t] += sum over rows r of exp(scale * q_r,h . k_j - lse[r, h]), j being the slot at distance t
  // from the last one that row r sees. sums [Hq, columns], columns >= a lane's length. Bits depend
  // on which rows share a call.
  virtual void diagonal_mass(const ObserveArgs& /*args*/, const TensorView& /*lse*/, const TensorView& /*sums*/) {
    PKV_CHECK(false, "asked of a backend whose traits say no");
  }
  // Of every KV head, its query heads together: pattern.columns become the best by attention of the slots in
  // [kSparseBlock, pattern.dense_from), pattern.bands 0, 1, and the best by the attention on diagonals as far as
  // neither these columns nor block 0 explain it; of equals the first. pairs[g] = so many pairs of a row and a slot
  // that it sees the pattern leaves of a prompt of n rows. pairs [1, Hkv] f64. C + kSparseBlock <= pattern.dense_from
  // <= n; 2 <= B <= the blocks of n slots.
  virtual void choose_pattern(const PatternMasses& /*masses*/, const SparsePattern& /*pattern*/,
                              const TensorView& /*pairs*/) {
    PKV_CHECK(false, "asked of a backend whose traits say no");
  }

  // norms[h, j] = |v_j F_h| of the values v of lane first_lane + h / G, the lanes being kv_heads and query head h's F_h
  // the rows [h d, (h + 1) d) of factors: lower triangular, what is above the diagonal is not read. factors [Hq * d,
  // d], norms [Hq, n]. Float32 throughout.
  virtual void value_norms(const KvView& kv, int32_t first_lane, int32_t kv_heads, const TensorView& factors,
                           const TensorView& norms) = 0;
  // out[g, j] = sqrt(scale * the sum over the G query heads of KV head g of squares[h, j] * weights[h, j]^2). squares,
  // weights [Hq, n], out [Hkv, n].
  virtual void weigh_groups(const TensorView& squares, const TensorView& weights, float scale,
                            const TensorView& out) = 0;
  // scores[g, j] = the larger of scores[g, j] and other[g, j]; with `by_mean` each divided by the mean of its row,
  // where a row whose mean is not above 0 counts as zeros. scores, other [Hkv, n].
  virtual void merge_scores(const TensorView& other, bool by_mean, const TensorView& scores) = 0;
  // out[g, j] = reduce over the G query heads of KV head g of sums[h, j]. sums [Hq, n], out [Hkv, n].
  virtual void reduce_groups(const TensorView& sums, GroupReduce reduce, const TensorView& out) = 0;
  // Pools each row along columns: stride 1, odd kernel, same length. scores, out [lanes, n], not the same memory.
  virtual void pool_scores(const TensorView& scores, PoolKind kind, int32_t kernel, const TensorView& out) = 0;
  // scores[g, j] = score_entry(scoring, g, j, n, scores[g, j]). scores [Hkv, n].
  virtual void score_entries(const EntryScoring& scoring, const TensorView& scores) = 0;

  // ---- what a layer's lanes keep
  // Below, `scores` [lanes, n] f32 are of one layer's lanes. A lane keeps the newest `window` columns without their
  // being looked at, and of the others the best: score descending, then smaller column first. `counts` [1, lanes] i32
  // says how many it keeps, window included, window <= counts[g] <= n.
  //
  // kept[g, 0 .. counts[g]) = the columns that lane g keeps, ascending. kept [lanes, >= counts] i32.
  virtual void select_top(const TensorView& scores, int32_t window, const TensorView& counts,
                          const TensorView& kept) = 0;
  // Divides share.total entries: every lane has its smallest_lane best, and counts[g] is how many more lane g has among
  // the best of all lanes together (score descending, then smaller lane, then smaller column). No lane gets more than
  // share.largest_lane; what it would have beyond that goes to the others, or to nobody where all have as many.
  virtual void share_layer(const TensorView& scores, const LayerShare& share, const TensorView& counts) = 0;
  // counts[g] = the fewest entries whose recall reaches share.recall, +infinity scores always among them, but at most
  // share.largest_lane; recalls[g] = their recall. mass as recall() has it, summed in the order of the ranks.
  virtual void count_for_recall(const TensorView& scores, const TensorView& mass, const RecallShare& share,
                                const TensorView& counts, const TensorView& recalls) = 0;
  // recalls[g] = the sum of mass[g, kept[g, i]] over i < counts[g], divided by that of all mass[g, j]. Float64, in
  // ascending order. mass [lanes, n] f32, recalls [1, lanes] f64.
  virtual void recall(const TensorView& mass, const TensorView& kept, const TensorView& counts,
                      const TensorView& recalls) = 0;
  // For every lane g of `kept`: slot i of lane to + g becomes the entry at slot kept[g, i] of lane from + g, i <
  // counts[g], positions with them. kept [lanes, >= counts] i32, distinct in a row, in any order; counts [1, lanes]
  // i32. `to` may be `from` (in place); otherwise lane to + g has room for counts[g] entries. Where the two lanes'
  // formats differ, entries are converted: read as float32, from a format without scales, and rounded as write_kv()
  // does. A pair of lanes shares no page, or begins at the same place of the page table: lane to + g then is lane from
  // + g once it is converted, its entries are not larger, and kept[g] ascends.
  virtual void gather(const KvView& kv, int32_t from, const TensorView& kept, const TensorView& counts, int32_t to) = 0;

  // ---- keys by themselves
  // Of the lanes first_lane + g, one row each, all with n = columns entries.
  // norms[g, j] = |k_j|, L2. norms [lanes, n].
  virtual void key_norms(const KvView& kv, int32_t first_lane, const TensorView& norms) = 0;
  // unit_sums[g] = sum over j of k_j / |k_j|; cosines[g, j] = k_j . unit_sums[g] / (|k_j| |unit_sums[g]|), 0 where
  // either has no length. unit_sums [lanes, d], cosines [lanes, n]. Float32 throughout.
  virtual void key_similarity(const KvView& kv, int32_t first_lane, const TensorView& unit_sums,
                              const TensorView& cosines) = 0;
  // Rotates the keys at slots [first_slot, length) of the lanes [first_lane, first_lane + lanes) by `delta` more
  // positions (negative: back); recorded positions stay. RoPE's rotations add up, so a key stored at p is then one at p
  // + delta.
  virtual void turn_keys(const KvView& kv, int32_t first_lane, int32_t lanes, int32_t first_slot, int32_t delta,
                         const RopeSpec& spec) = 0;
  // Writes the rows to the slots [0, S) of every lane, slot == position, their keys turned as turn_keys() does.
  virtual void write_turned(const TurnedRows& rows, const RopeSpec& spec) = 0;

  // ---- evictions while generating (eviction.h)
  // out[r, i] = from[r, columns[r, i]]. from [rows, n], columns i32 and out [rows, count].
  virtual void take_columns(const TensorView& from, const TensorView& columns, const TensorView& out) = 0;
  // The slot of every sequence's new token in all its lanes: write_slot where that is kChosenByEviction; and there the
  // token's position and, where no key is needed for it, score (kNoScore where one is).
  virtual void choose_slots(const EvictingStep& step) = 0;
  // The scores that need the tokens' keys, k [R, Hkv * d] of the step's rows in this one layer, rotated. Products and
  // sums in float64, element after element.
  virtual void score_new_entries(const EvictingStep& step, const TensorView& k) = 0;
  // Of sequences that keep queries: the tokens' own of the step's one layer come to their places. q [R, Hq * d], after
  // RoPE.
  virtual void keep_queries(const EvictingStep& step, const TensorView& q) = 0;
  // Of sequences whose scores grow by attention, in the step's one layer, whose lanes have the tokens' keys: the score
  // of every entry j += the mean over the query heads h of its KV head of exp(scale * q_h . k_j - the log-sum-exp over
  // the lane); none is made where there is none. Float32, whatever the compute mode.
  virtual void add_attention(const EvictingStep& step, const TokenQueries& queries) = 0;
  // Before the step's token: the entries but the newest `newest` get scores[lane, slot], these none, and what never
  // goes keeps that. scores [lanes, >= entries - newest].
  virtual void set_scores(const ScoredLanes& lanes, const TensorView& scores, int32_t newest) = 0;
  // Before the step's token: puts scores and positions into the order of the positions; order[lane, i] is the slot
  // whose entry has to come to slot i < counts[lane]. order i32 [lanes, >= entries], counts i32 [1, lanes].
  virtual void order_entries(const ScoredLanes& lanes, const TensorView& order, const TensorView& counts) = 0;

  // ---- logits (kernels/sampling.h)
  virtual void sample_rows(const SampleArgs& args) = 0;
  virtual void token_logprobs(const LogprobArgs& args) = 0;
  // Row r of `results`, i32 [R, >= 4], becomes the RowComparison of row r of logits [R, V] with baseline [1, V].
  virtual void compare_rows(const TensorView& logits, const TensorView& baseline, const TensorView& results) = 0;
};

// How a backend is to be made.
struct BackendOptions {
  std::string device = "cpu";  // cpu | reference | cuda:N
  bool exact = false;          // runtime.compute: float32 -- dequantised weights, every product in float32
  bool fast = false;           // runtime.compute: fast -- WeightSource::tolerant is made use of
  int32_t threads = 0;         // 0: one per available core
  // cpu: the highest path to use (scalar, avx2, avx512, avx512_vnni, avx512_bf16, amx_bf16). Empty: of all there is,
  // the paths that a measurement of some milliseconds finds faster.
  std::string isa;
  bool graphs = true;  // cuda: replay() remembers; false: it asks anew every time
};
// INVALID_ARGUMENT for an unknown device or path, FAILED_PRECONDITION where this machine lacks it.
absl::StatusOr<std::unique_ptr<Backend>> make_backend(const BackendOptions& options);

}  // namespace pkv
