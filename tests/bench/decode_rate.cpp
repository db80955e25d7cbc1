// pkv-decode-rate: how fast a device decodes when caches are there already: sequences are opened with so many random
// entries in every lane, and decode steps run over them as the engine runs them. A line of JSON a case:
// milliseconds a step on the host's clock and the device's, tokens a second, and the bytes of weights and cache entries
// that a step reads, as a rate. Shares: "100%,12%" of the tokens; "128" entries; "mixed": a third of the sequences each
// with all of them, half and an eighth, the layers of the last as a pyramid; "uniform": all as many entries as mixed.
// Where several entry formats are named their steps take turns, and each line has the ratio to the first one's step.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "server/engine/decode_step.h"
#include "server/policy/registry.h"

namespace pkv {
namespace {

struct RateOptions {
  std::string model, device = "cpu", isa;
  std::vector<int32_t> tokens{8192}, sequences{1};
  std::vector<std::string> shares{"100%"};
  std::vector<std::string> formats{"f16"};
  int32_t steps = 20, threads = 0, page_bytes = 0;
  bool graphs = true;
};

template <typename T>
T must(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::fprintf(stderr, "pkv-decode-rate: %s\n", std::string(value.status().message()).c_str());
  std::exit(1);
}

// Entries of every layer's lanes, of sequence `index`.
std::vector<int32_t> entries_of(const std::string& share, int32_t tokens, int32_t index, int32_t layers) {
  if (share == "mixed" || share == "uniform") {
    const std::vector<int32_t> thirds = {tokens, tokens / 2, tokens / 8};
    if (share == "uniform") {
      return std::vector<int32_t>(static_cast<size_t>(layers), (thirds[0] + thirds[1] + thirds[2]) / 3);
    }
    const int32_t mean = thirds[static_cast<size_t>(index % 3)];
    std::vector<int32_t> entries(static_cast<size_t>(layers), mean);
    if (index % 3 != 2) return entries;
    for (int32_t layer = 0; layer < layers; ++layer) {  // from twice the mean to nearly nothing
      entries[static_cast<size_t>(layer)] = std::max(1, mean * (2 * (layers - layer) - 1) / layers);
    }
    return entries;
  }
  double number = 0;
  const bool percent = absl::EndsWith(share, "%");
  if (!absl::SimpleAtod(share.substr(0, share.size() - (percent ? 1 : 0)), &number) || number <= 0) {
    must<int>(absl::InvalidArgumentError("--shares: neither entries, nor a share, mixed or uniform: " + share));
  }
  const auto entries = static_cast<int32_t>(percent ? number / 100 * tokens : std::min<double>(number, tokens));
  return std::vector<int32_t>(static_cast<size_t>(layers), std::max(1, entries));
}

constexpr int32_t kFillRows = 1024;  // that are written at once

// Numbers of the size of keys and values.
Tensor random_rows(Backend& backend, int64_t cols, uint32_t seed) {
  std::mt19937 rng(seed);
  std::uniform_real_distribution<float> number(-1, 1);
  std::vector<float> values(static_cast<size_t>(kFillRows * cols));
  for (float& value : values) value = number(rng);
  Tensor rows = must(backend.allocate(kFillRows, cols, DType::kF32));
  backend.upload(rows.view(), values.data());
  return rows;
}

// Steps over sequences that are there already.
class FilledCache {
 public:
  FilledCache(const Model& model, KvDtype format, const std::string& share, int32_t tokens, int32_t sequences,
              int32_t steps, int32_t page_bytes)
      : model_(model), spec_{.kv_dtype = format} {
    const ModelShape& shape = model.shape();
    Backend& backend = model.backend();
    const CacheGeometry geometry{shape.layers, shape.kv_heads, shape.head_dim,
                                 page_bytes == 0 ? backend.traits().page_bytes : page_bytes};
    std::vector<std::vector<int32_t>> entries;
    uint64_t pages = 0;
    for (int32_t i = 0; i < sequences; ++i) {
      entries.push_back(entries_of(share, tokens, i, shape.layers));
      for (const int32_t count : entries.back()) {
        pages += static_cast<uint64_t>(shape.kv_heads) *
                 static_cast<uint64_t>(geometry.layout(format).pages_for(count + steps));
        bytes_ += static_cast<uint64_t>(shape.kv_heads) * static_cast<uint64_t>(count) *
                  static_cast<uint64_t>(entry_format(format).entry_bytes(shape.head_dim));
      }
    }
    auto cache = KvCache::create(backend, geometry, pages * static_cast<uint64_t>(geometry.page_bytes));
    status_ = cache.status();
    if (!status_.ok()) return;
    cache_ = *std::move(cache);
    scratch_ = must(model.make_scratch(std::max(sequences, backend.traits().decode_rows)));
    compressor_scratch_ = must(CompressorScratch::create(backend, shape.q_heads, geometry, 1));
    head_.emplace(must(OutputHead::create(model, std::min(sequences, 64), sequences)));
    step_.emplace(must(DecodeStep::create({.model = model,
                                           .cache = *cache_,
                                           .scratch = scratch_,
                                           .compressor_scratch = *compressor_scratch_,
                                           .head = *head_},
                                          sequences)));
    policy_ = must(make_policy(spec_));
    filling_.emplace(must(StepBuffer::create(*cache_, {.rows = kFillRows, .spans = 1})));
    keys_ = random_rows(backend, int64_t{shape.kv_heads} * shape.head_dim, 1);
    values_ = random_rows(backend, int64_t{shape.kv_heads} * shape.head_dim, 2);
    for (int32_t i = 0; i < sequences; ++i) add_sequence(entries[static_cast<size_t>(i)], tokens, steps);
  }

  const absl::Status& status() const { return status_; }  // RESOURCE_EXHAUSTED: the caches do not fit, and no step runs

  void step() {
    const absl::Status done = step_->run(
        rows_, [](size_t, const OutputHead::Result&) { return absl::OkStatus(); },
        [](size_t, const absl::Status& status) { must<int>(status); });
    if (!done.ok()) must<int>(done);
    for (DecodeRow& row : rows_) ++row.position;
  }
  uint64_t bytes() const { return bytes_; }  // of the entries that a step reads, of those of the first

 private:
  void add_sequence(const std::vector<int32_t>& entries, int32_t tokens, int32_t steps) {
    const int32_t kv_heads = model_.shape().kv_heads;
    CachePlan plan;
    for (const int32_t count : entries) plan.lane_limits.insert(plan.lane_limits.end(), kv_heads, count + steps);
    plan.lane_budgets = plan.lane_limits;
    lanes_.push_back(must(SequenceLanes::open({.model = model_,
                                               .cache = *cache_,
                                               .policy = *policy_,
                                               .spec = spec_,
                                               .plan = plan,
                                               .prompt_tokens = tokens,
                                               .holds_whole_layers = false})));
    for (size_t layer = 0; layer < entries.size(); ++layer) {
      fill(lanes_.back()->id(), static_cast<int32_t>(layer), entries[layer]);
    }
    rows_.push_back({.lanes = lanes_.back().get(), .token = 1, .position = tokens, .output = {.sampling = &greedy_}});
  }

  // Memory that nothing was written to is no memory yet: the kernel shows the same page of zeros everywhere.
  void fill(SequenceId sequence, int32_t layer, int32_t entries) {
    StepBuffer& step = *filling_;
    for (int32_t first = 0; first < entries; first += kFillRows) {
      const int32_t rows = std::min(kFillRows, entries - first);
      const absl::Status room = cache_->append_slots(sequence, layer, rows);
      if (!room.ok()) must<int>(room);
      step.begin(Phase::kPrefill, {.rows = rows, .spans = 1}, layer);
      std::fill_n(step.token_ids(), rows, 0);
      std::iota(step.positions(), step.positions() + rows, first);
      std::iota(step.angles(), step.angles() + rows, first);
      step.spans()[0] = {.first_row = 0, .rows = rows, .first_lane = 0};
      cache_->view(sequence, layer, rows, step.lanes());
      const StepPlan plan = step.commit();
      model_.backend().write_kv(keys_.rows(rows), values_.rows(rows), plan.positions, plan.view(layer), plan.spans,
                                model_.shape().kv_heads);
    }
  }

  const Model& model_;
  absl::Status status_;
  const PolicySpec spec_;
  const SamplingParams greedy_;
  std::unique_ptr<CachePolicy> policy_;
  std::unique_ptr<KvCache> cache_;
  StepScratch scratch_;
  std::unique_ptr<CompressorScratch> compressor_scratch_;
  std::optional<OutputHead> head_;
  std::optional<DecodeStep> step_;
  std::optional<StepBuffer> filling_;
  Tensor keys_, values_;  // of kFillRows entries, all heads
  std::vector<std::unique_ptr<SequenceLanes>> lanes_;
  std::vector<DecodeRow> rows_;
  uint64_t bytes_ = 0;
};

struct Case {
  std::vector<std::string> formats;
  std::string share;
  int32_t tokens = 0, sequences = 0, steps = 0, page_bytes = 0;
  uint64_t weight_bytes = 0;  // that a step reads
};

double median(std::vector<double>& values) {
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

// A line for each format; the formats' steps take turns.
std::vector<nlohmann::json> measure(const Model& model, const Case& one) {
  struct Measured {
    std::unique_ptr<FilledCache> cache;
    std::vector<double> seconds, device;
  };
  constexpr int32_t kWarm = 3;  // asked for, recorded, replayed
  std::vector<nlohmann::json> lines;
  std::vector<Measured> formats;
  for (const std::string& name : one.formats) {
    const EntryFormat& format = *std::ranges::find(kEntryFormats.rows, name, &EntryFormat::name);
    formats.push_back({.cache = std::make_unique<FilledCache>(model, format.id, one.share, one.tokens, one.sequences,
                                                              one.steps + kWarm, one.page_bytes)});
    lines.push_back({{"tokens", one.tokens}, {"sequences", one.sequences}, {"share", one.share}, {"kv_dtype", name}});
    if (const absl::Status& status = formats.back().cache->status(); !status.ok()) {
      lines.back()["skipped"] = std::string(status.message());
      return {lines.back()};
    }
  }
  for (const Measured& format : formats) {
    for (int32_t i = 0; i < kWarm; ++i) format.cache->step();
  }
  Backend& backend = model.backend();
  for (int32_t i = 0; i < one.steps; ++i) {
    for (Measured& format : formats) {
      const auto begin = std::chrono::steady_clock::now();
      const int64_t before = backend.mark();
      format.cache->step();
      const int64_t after = backend.mark();
      format.seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
      backend.sync();
      format.device.push_back(backend.elapsed(before, after));
    }
  }
  const double first = median(formats[0].seconds);
  for (size_t i = 0; i < formats.size(); ++i) {
    const double step = median(formats[i].seconds);
    const uint64_t cache_bytes = formats[i].cache->bytes();
    lines[i].update({{"step_milliseconds", 1e3 * step},
                     {"device_milliseconds", 1e3 * median(formats[i].device)},
                     {"tokens_per_second", one.sequences / step},
                     {"cache_bytes", cache_bytes},
                     {"weight_bytes", one.weight_bytes},
                     {"read_gigabytes_per_second", 1e-9 * static_cast<double>(cache_bytes + one.weight_bytes) / step}});
    if (formats.size() > 1) lines[i]["step_to_first_format"] = step / first;
  }
  return lines;
}

void run(const RateOptions& options) {
  const auto file = must(GgufFile::open(options.model));
  const auto backend = must(make_backend(
      {.device = options.device, .threads = options.threads, .isa = options.isa, .graphs = options.graphs}));
  const auto model = must(load_model(*file, *backend));
  std::cerr << backend->description() << "\n";
  // Of an embedding that is no output head a step reads some rows.
  uint64_t weight_bytes = model->weight_bytes();
  if (file->find_tensor("output.weight") != nullptr)
    weight_bytes -= file->find_tensor("token_embd.weight")->data.size();
  for (const int32_t tokens : options.tokens) {
    for (const int32_t sequences : options.sequences) {
      for (const std::string& share : options.shares) {
        const Case one{options.formats, share, tokens, sequences, options.steps, options.page_bytes, weight_bytes};
        for (const nlohmann::json& line : measure(*model, one)) std::cout << line << std::endl;
      }
    }
  }
}

}  // namespace
}  // namespace pkv

int main(int argc, char** argv) {
  pkv::RateOptions options;
  CLI::App app("Decode steps over caches that are there already, a line of JSON a case");
  app.add_option("--model", options.model, "GGUF file")->envname("PKV_MODEL")->required();
  app.add_option("--device", options.device, "cpu or cuda:N")->capture_default_str();
  app.add_option("--tokens", options.tokens, "Lengths of the texts")->capture_default_str()->delimiter(',');
  app.add_option("--sequences", options.sequences, "Sequences of a step")->capture_default_str()->delimiter(',');
  app.add_option("--shares", options.shares, "What is kept: 12%, 128 entries, mixed, uniform")
      ->capture_default_str()
      ->delimiter(',');
  std::vector<std::string> formats;
  for (const pkv::EntryFormat& format : pkv::kEntryFormats.rows) formats.emplace_back(format.name);
  app.add_option("--kv-dtype", options.formats, "Formats of entries")
      ->capture_default_str()
      ->delimiter(',')
      ->check(CLI::IsMember(formats));
  app.add_option("--steps", options.steps, "Steps that are measured")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--page-bytes", options.page_bytes, "Of a page; 0: the device's choice")->capture_default_str();
  app.add_option("--threads", options.threads, "0: one per core");
  app.add_option("--isa", options.isa, "Highest instruction-set path");
  app.add_flag("!--no-graphs", options.graphs, "Ask for every kernel of every step");
  CLI11_PARSE(app, argc, argv);
  pkv::run(options);
  return 0;
}
