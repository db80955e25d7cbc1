// The metrics by name. Labels never hold request ids, users or prompts, and they do not change: every combination is
// there from the first scrape, or from the moment the model is loaded where it names the model. docs/metrics.md lists
// them.
#include <array>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "server/engine/device_use.h"
#include "server/http/family_builder.h"
#include "server/http/metrics_exporter.h"
#include "server/policy/registry.h"
#include "server/telemetry/process_stats.h"
#include "server/telemetry/version.h"

namespace pkv {
namespace {

using Type = FamilyBuilder::Type;

constexpr std::array<std::string_view, 4> kStates = {"loading", "serving", "draining", "failed"};

std::string_view state_name(std::optional<Engine::State> state) {
  if (!state) return kStates[0];
  switch (*state) {
    case Engine::State::kServing:
      return kStates[1];
    case Engine::State::kDraining:
    case Engine::State::kStopped:
      return kStates[2];
    case Engine::State::kFailed:
      return kStates[3];
  }
  return "";
}

using PolicyTotals = EngineStats::PolicyTotals;
using PolicyHistograms = EngineHistograms::Policy;

// A figure that every policy has one of.
struct PolicyFigure {
  const char* name;
  const char* help;
  Type type;
  double (*value)(const PolicyTotals& totals);
};

template <auto member>
double figure(const PolicyTotals& totals) {
  return static_cast<double>(totals.*member);
}

constexpr PolicyFigure kPolicyFigures[] = {
    {"prompt_tokens_total", "Prompt tokens, counted when the whole prompt has been read.", Type::Counter,
     figure<&PolicyTotals::prompt_tokens_total>},
    {"generation_tokens_total", "Generated tokens, those that end an answer included.", Type::Counter,
     figure<&PolicyTotals::generation_tokens_total>},
    {"kv_cache_held_bytes", "Bytes of the cache entries that running requests hold.", Type::Gauge,
     figure<&PolicyTotals::held_bytes>},
    {"kv_cache_allocated_bytes", "Bytes of the cache pages that running requests hold.", Type::Gauge,
     figure<&PolicyTotals::allocated_bytes>},
    {"kv_cache_full_equivalent_bytes", "Bytes that full f16 caches of the running requests would hold.", Type::Gauge,
     figure<&PolicyTotals::full_equivalent_bytes>},
    {"kv_cache_auxiliary_bytes", "Bytes of positions, page tables and kept scores of running requests.", Type::Gauge,
     figure<&PolicyTotals::auxiliary_bytes>},
    {"kv_cache_saved_bytes", "Full-equivalent less allocated and auxiliary bytes; negative where nothing is saved.",
     Type::Gauge, figure<&PolicyTotals::saved_bytes>},
    {"kv_cache_held_byte_seconds_total", "Integral over time of the held bytes; its rate is their exact average.",
     Type::Counter, figure<&PolicyTotals::held_byte_seconds_total>},
    {"kv_cache_full_equivalent_byte_seconds_total",
     "Integral over time of the full-equivalent bytes; its rate is their exact average.", Type::Counter,
     figure<&PolicyTotals::full_equivalent_byte_seconds_total>},
    {"request_kv_cache_full_bytes_total", "Sum of full_bytes over the cache reports of completed requests.",
     Type::Counter, figure<&PolicyTotals::reported_full_bytes_total>},
    {"request_kv_cache_allocated_bytes_total", "Sum of allocated_bytes over the cache reports of completed requests.",
     Type::Counter, figure<&PolicyTotals::reported_allocated_bytes_total>},
    {"request_kv_cache_auxiliary_bytes_total", "Sum of auxiliary_bytes over the cache reports of completed requests.",
     Type::Counter, figure<&PolicyTotals::reported_auxiliary_bytes_total>},
};

struct PolicyDistribution {
  const char* name;
  const char* help;
  Histogram PolicyHistograms::*histogram;
};

constexpr PolicyDistribution kPolicyDistributions[] = {
    {"time_to_first_token_seconds", "From a request's arrival at the engine to its first token.",
     &PolicyHistograms::time_to_first_token},
    {"inter_token_latency_seconds", "From one token of an answer to the next.", &PolicyHistograms::inter_token_latency},
    {"request_duration_seconds", "From arrival at the engine to the end, of completed answers.",
     &PolicyHistograms::request_duration},
    {"request_queue_duration_seconds",
     "From a request's arrival at the engine until its prompt is begun (or it ends, once admitted).",
     &PolicyHistograms::queue_duration},
    {"request_prefill_duration_seconds",
     "From the beginning of a prompt to its end, what ran in between for others included.",
     &PolicyHistograms::prefill_duration},
    {"kv_cache_compression_duration_seconds",
     "Time spent on scoring and cutting one request's cache after its prompt, of those that were cut.",
     &PolicyHistograms::compression_duration},
    {"request_kv_cache_keep_ratio", "Held by full bytes at the end of completed requests; above 1 with f32 entries.",
     &PolicyHistograms::keep_ratio},
    {"request_kv_cache_peak_bytes", "Largest allocated and auxiliary bytes of completed requests.",
     &PolicyHistograms::peak_bytes},
    {"request_kv_cache_recall_ratio",
     "Mean share of the observed attention that was kept, of completed requests whose report has it.",
     &PolicyHistograms::recall_ratio},
};

// What of a snapshot is the engine's, or zeros in its place.
struct EngineView {
  explicit EngineView(const MetricsSnapshot& snapshot)
      : engine(snapshot.engine != nullptr ? *snapshot.engine : zero),
        histograms(engine.histograms != nullptr ? engine.histograms : std::make_shared<const EngineHistograms>()) {}
  const PolicyTotals& totals(const PolicyRow& policy) const {
    const auto found = engine.policies.find(std::string(policy.name));
    return found == engine.policies.end() ? no_totals : found->second;
  }

  const EngineStats zero;
  const PolicyTotals no_totals;
  const EngineStats& engine;
  const std::shared_ptr<const EngineHistograms> histograms;
};

std::string name_of(const PolicyRow& policy) { return std::string(policy.name); }

// A family with one sample per policy and value of a further label.
using LabelledFigure = std::pair<const char*, std::function<double(const PolicyTotals&)>>;
void add_by_policy_and(const char* label, std::initializer_list<LabelledFigure> figures, const EngineView& view,
                       FamilyBuilder& out) {
  for (const PolicyRow& policy : policy_table()) {
    for (const auto& [value, of] : figures) {
      out.sample({{"policy", name_of(policy)}, {label, value}}, of(view.totals(policy)));
    }
  }
}

LabelledFigure finished_with(const char* reason) {
  return {reason, [reason](const PolicyTotals& totals) {
            const auto found = totals.finished_total.find(reason);
            return found == totals.finished_total.end() ? 0.0 : static_cast<double>(found->second);
          }};
}

void add_requests(const MetricsSnapshot& snapshot, const EngineView& view, FamilyBuilder& out) {
  out.gauge("requests_running", "Requests that were admitted and have not ended.", view.engine.running);
  out.gauge("requests_waiting", "Requests that wait for memory or a place.", view.engine.waiting);
  out.gauge("waiting_prompt_tokens", "Tokens of the prompts of requests that wait.",
            static_cast<double>(view.engine.waiting_tokens));
  out.gauge("open_calls", "Generation calls of which anything is left: also those whose answer is still being read.",
            static_cast<double>(snapshot.open_calls));
  out.begin("calls", "Calls about text, by what they are at.", Type::Gauge);
  for (const CallPhase phase : kCallPhases) {
    out.sample({{"phase", std::string(name_of(phase))}},
               static_cast<double>(snapshot.calls[static_cast<size_t>(phase)]));
  }
  out.gauge("connections", "gRPC connections that are open.", static_cast<double>(snapshot.connections));
  out.counter("connections_refused_total", "gRPC connections beyond server.max_connections, which were closed at once.",
              static_cast<double>(snapshot.connections_refused));
  out.begin("requests_by_policy", "Requests that run or wait, by cache policy.", Type::Gauge);
  add_by_policy_and("state", {{"running", figure<&PolicyTotals::running>}, {"waiting", figure<&PolicyTotals::waiting>}},
                    view, out);
  out.begin("requests_total",
            "Generation calls that ended, by gRPC status; policy none: ended before they reached the engine.",
            Type::Counter);
  for (const auto& [labels, count] : snapshot.requests.requests) {
    out.sample({{"policy", labels.first}, {"code", labels.second}}, static_cast<double>(count));
  }
  out.begin("requests_rejected_total", "Generation calls that were refused, by the reason in the error's details.",
            Type::Counter);
  for (const auto& [reason, count] : snapshot.requests.rejected) {
    out.sample({{"reason", reason}}, static_cast<double>(count));
  }
  out.begin("requests_finished_total", "Answers that were completed, by what ended them.", Type::Counter);
  add_by_policy_and("finish_reason", {finished_with("stop"), finished_with("length")}, view, out);
}

void add_memory(const EngineView& view, FamilyBuilder& out) {
  const EngineStats& engine = view.engine;
  const auto pool = static_cast<double>(engine.pool_bytes);
  out.gauge("kv_cache_usage_ratio", "Share of the cache pool that is in use, from 0 to 1.",
            engine.pool_bytes == 0 ? 0.0 : static_cast<double>(engine.live_bytes) / pool);
  out.gauge("kv_cache_pool_bytes", "Size of the cache pool.", pool);
  out.gauge("kv_cache_free_bytes", "Bytes of the cache pool that no request holds.",
            static_cast<double>(engine.free_bytes));
  out.gauge("kv_cache_reserved_bytes",
            "Bytes of the cache pool that are promised to admitted requests, held ones included; admission goes by it.",
            static_cast<double>(engine.reserved_bytes));
}

void add_policies(const EngineView& view, FamilyBuilder& out) {
  for (const PolicyFigure& figure : kPolicyFigures) {
    out.begin(figure.name, figure.help, figure.type);
    for (const PolicyRow& policy : policy_table()) {
      out.sample({{"policy", name_of(policy)}}, figure.value(view.totals(policy)));
    }
  }
  out.begin(
      "kv_cache_evicted_entries_total",
      "Cache entries (one KV head of one layer, one token) that were evicted: after prompts, and one by one while "
      "tokens were generated.",
      Type::Counter);
  add_by_policy_and("phase",
                    {{"prefill", figure<&PolicyTotals::evicted_entries_total>},
                     {"decode", figure<&PolicyTotals::evicted_while_generating_total>}},
                    view, out);
  out.begin("kv_cache_compressions_total", "Prompts that were read, by whether the cut after them took entries away.",
            Type::Counter);
  add_by_policy_and("outcome",
                    {{"compressed", figure<&PolicyTotals::prompts_compressed_total>},
                     {"unchanged", figure<&PolicyTotals::prompts_unchanged_total>}},
                    view, out);
}

void add_distributions(const EngineView& view, FamilyBuilder& out) {
  for (const PolicyDistribution& distribution : kPolicyDistributions) {
    out.begin(distribution.name, distribution.help, Type::Histogram);
    for (size_t i = 0; i < policy_table().size(); ++i) {
      out.sample({{"policy", name_of(policy_table()[i])}},
                 (view.histograms->policies[i].*distribution.histogram).read());
    }
  }
  out.histogram("step_tokens", "Rows of model work in one engine step, of steps that had any.",
                view.histograms->step_tokens);
  out.histogram("batch_size", "Sequences that one engine step decoded, of steps that had any; a comparison is one.",
                view.histograms->batch_size);
}

void add_server(const MetricsSnapshot& snapshot, const EngineView& view, FamilyBuilder& out) {
  out.begin("server_state", "1 for the state the server is in, 0 for the others.", Type::Gauge);
  for (const std::string_view state : kStates) {
    out.sample({{"state", std::string(state)}}, state == state_name(snapshot.state) ? 1 : 0);
  }
  out.counter("engine_steps_total", "Steps of the engine.", static_cast<double>(view.engine.steps_total));
  out.begin("build_info", "Always 1; the label names the build.", Type::Gauge);
  out.sample({{"version", std::string(version())}}, 1);
}

std::vector<std::pair<const char*, uint64_t>> memory_components(const MetricsSnapshot& snapshot,
                                                                const EngineStats& engine) {
  if (!engine.device.has_value()) {
    return {{"weights", snapshot.weight_bytes}, {"kv_cache", engine.live_bytes}, {"workspace", engine.workspace_bytes}};
  }
  const DeviceUse use = device_use(engine);
  return {{"weights", use.weights},     {"kv_cache", use.kv_live}, {"kv_cache_free", use.kv_free},
          {"workspace", use.workspace}, {"step", use.step},        {"other", use.other},
          {"idle", use.idle},           {"staging", use.staging}};
}

void add_model(const MetricsSnapshot& snapshot, const EngineView& view, FamilyBuilder& out) {
  out.begin("model_info", "Always 1, once the model is loaded; the labels name it.", Type::Gauge);
  out.sample({{"model", snapshot.model}, {"architecture", snapshot.architecture}, {"weights", snapshot.weights}}, 1);
  out.begin("device_memory_bytes", "Memory in use by component, once the model is loaded.", Type::Gauge);
  for (const auto& [component, bytes] : memory_components(snapshot, view.engine)) {
    out.sample({{"device", snapshot.device}, {"component", component}}, static_cast<double>(bytes));
  }
  if (!snapshot.layers) return;
  out.begin("kv_cache_layer_held_bytes",
            "Bytes of the cache entries that running requests hold, by layer from 0 on; with metrics.layers.",
            Type::Gauge);
  for (const PolicyRow& policy : policy_table()) {
    const std::vector<uint64_t>& layers = view.totals(policy).layer_held_bytes;
    for (size_t layer = 0; layer < layers.size(); ++layer) {
      out.sample({{"policy", name_of(policy)}, {"layer", std::to_string(layer)}}, static_cast<double>(layers[layer]));
    }
  }
}

void add_process(FamilyBuilder& out) {
  const std::optional<ProcessStats> process = read_process_stats();
  if (!process) return;
  const auto add = [&](const char* name, const char* help, Type type, double value) {
    out.begin_standard(name, help, type);
    out.sample({}, value);
  };
  add("process_cpu_seconds_total", "Processor time of the process, user and system.", Type::Counter,
      process->cpu_seconds);
  add("process_resident_memory_bytes", "Memory of the process that is resident.", Type::Gauge,
      static_cast<double>(process->resident_bytes));
  add("process_virtual_memory_bytes", "Address space of the process.", Type::Gauge,
      static_cast<double>(process->virtual_bytes));
  add("process_start_time_seconds", "When the process started, in seconds since 1970.", Type::Gauge,
      process->start_time_seconds);
  add("process_open_fds", "Open file descriptors of the process.", Type::Gauge, static_cast<double>(process->open_fds));
  add("process_max_fds", "File descriptors that the process may have open.", Type::Gauge, process->max_fds);
  add("process_threads", "Threads of the process.", Type::Gauge, static_cast<double>(process->threads));
}

}  // namespace

std::vector<prometheus::MetricFamily> metric_families(const MetricsSnapshot& snapshot) {
  const EngineView view(snapshot);
  FamilyBuilder out;
  add_server(snapshot, view, out);
  add_requests(snapshot, view, out);
  add_memory(view, out);
  add_policies(view, out);
  add_distributions(view, out);
  if (snapshot.state) add_model(snapshot, view, out);
  add_process(out);
  return out.take();
}

}  // namespace pkv
