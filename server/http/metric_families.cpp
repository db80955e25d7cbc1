// The metrics by name. Labels never hold request ids, users or prompts, and every combination is there from the first
// scrape.
#include <functional>
#include <initializer_list>
#include <utility>

#include "server/http/metrics_exporter.h"
#include "server/telemetry/version.h"

namespace pkv {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

class Families {
 public:
  // Starts a family; the samples that follow are its own.
  void begin(const std::string& name, const std::string& help, MetricType type) {
    families_.push_back({.name = "pyramidkv_" + name, .help = help, .type = type, .metric = {}});
  }
  void sample(Labels labels, double value) {
    ClientMetric metric;
    metric.label = std::move(labels);
    (families_.back().type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
    families_.back().metric.push_back(std::move(metric));
  }
  void gauge(const std::string& name, const std::string& help, double value) {
    begin(name, help, MetricType::Gauge);
    sample({}, value);
  }
  void counter(const std::string& name, const std::string& help, double value) {
    begin(name, help, MetricType::Counter);
    sample({}, value);
  }
  std::vector<MetricFamily> take() { return std::move(families_); }

 private:
  std::vector<MetricFamily> families_;
};

// A figure that every policy has one of.
struct PolicyFigure {
  const char* name;
  const char* help;
  MetricType type;
  double (*value)(const PolicyTotals& totals);
};

constexpr PolicyFigure kPolicyFigures[] = {
    {"prompt_tokens_total", "Prompt tokens of requests that ended.", MetricType::Counter,
     [](const PolicyTotals& t) { return static_cast<double>(t.prompt_tokens_total); }},
    {"generation_tokens_total", "Generated tokens.", MetricType::Counter,
     [](const PolicyTotals& t) { return static_cast<double>(t.generation_tokens_total); }},
    {"kv_cache_held_bytes", "Bytes of the cache entries that running requests hold.", MetricType::Gauge,
     [](const PolicyTotals& t) { return static_cast<double>(t.held_bytes); }},
    {"kv_cache_full_equivalent_bytes", "Bytes that full f16 caches of the running requests would hold.",
     MetricType::Gauge, [](const PolicyTotals& t) { return static_cast<double>(t.full_equivalent_bytes); }},
    {"kv_cache_auxiliary_bytes", "Bytes of positions, page tables and kept scores of running requests.",
     MetricType::Gauge, [](const PolicyTotals& t) { return static_cast<double>(t.auxiliary_bytes); }},
    {"kv_cache_saved_bytes", "Full equivalent less allocated and auxiliary bytes; negative where nothing is saved.",
     MetricType::Gauge, [](const PolicyTotals& t) { return static_cast<double>(t.saved_bytes); }},
    {"kv_cache_held_byte_seconds_total", "Integral over time of the held bytes; its rate is their exact average.",
     MetricType::Counter, [](const PolicyTotals& t) { return t.held_byte_seconds_total; }},
    {"kv_cache_full_equivalent_byte_seconds_total", "Integral over time of the full-equivalent bytes.",
     MetricType::Counter, [](const PolicyTotals& t) { return t.full_equivalent_byte_seconds_total; }},
};

const PolicyTotals& totals_of(const EngineStats& stats, const std::string& policy) {
  static const PolicyTotals kNone;
  const auto found = stats.policies.find(policy);
  return found == stats.policies.end() ? kNone : found->second;
}

void add_policy_figures(const MetricsSnapshot& snapshot, Families& out) {
  for (const PolicyFigure& figure : kPolicyFigures) {
    out.begin(figure.name, figure.help, figure.type);
    for (const std::string& policy : snapshot.policies) {
      out.sample({{"policy", policy}}, figure.value(totals_of(snapshot.engine, policy)));
    }
  }
  out.begin("kv_cache_evicted_entries_total", "Cache entries (one KV head, one token) that were evicted.",
            MetricType::Counter);
  for (const std::string& policy : snapshot.policies) {
    const PolicyTotals& totals = totals_of(snapshot.engine, policy);
    out.sample({{"policy", policy}, {"phase", "prefill"}}, static_cast<double>(totals.evicted_entries_total));
    out.sample({{"policy", policy}, {"phase", "decode"}}, static_cast<double>(totals.evicted_while_generating_total));
  }
}

void add_requests(const MetricsSnapshot& snapshot, Families& out) {
  out.gauge("requests_running", "Requests being computed.", snapshot.engine.running);
  out.gauge("requests_waiting", "Requests that wait for memory or a place.", snapshot.engine.waiting);
  out.begin("requests_by_policy", "Requests being computed or waiting, by cache policy.", MetricType::Gauge);
  for (const std::string& policy : snapshot.policies) {
    const PolicyTotals& totals = totals_of(snapshot.engine, policy);
    out.sample({{"policy", policy}, {"state", "running"}}, totals.running);
    out.sample({{"policy", policy}, {"state", "waiting"}}, totals.waiting);
  }
  out.begin("requests_total", "Generation calls that ended, by gRPC status; policy none: refused before it was known.",
            MetricType::Counter);
  for (const auto& [labels, count] : snapshot.requests.requests) {
    out.sample({{"policy", labels.first}, {"code", labels.second}}, static_cast<double>(count));
  }
  out.begin("requests_rejected_total", "Generation calls that were refused, by reason.", MetricType::Counter);
  for (const auto& [reason, count] : snapshot.requests.rejected)
    out.sample({{"reason", reason}}, static_cast<double>(count));
  out.begin("requests_finished_total", "Answers that were completed, by what ended them.", MetricType::Counter);
  for (const std::string& policy : snapshot.policies) {
    const PolicyTotals& totals = totals_of(snapshot.engine, policy);
    for (const char* reason : {"stop", "length"}) {
      const auto found = totals.finished_total.find(reason);
      out.sample({{"policy", policy}, {"finish_reason", reason}},
                 found == totals.finished_total.end() ? 0.0 : static_cast<double>(found->second));
    }
  }
}

void add_memory(const MetricsSnapshot& snapshot, Families& out) {
  const EngineStats& engine = snapshot.engine;
  const auto pool = static_cast<double>(engine.pool_bytes);
  out.gauge("kv_cache_usage_ratio", "Share of the cache pool that is in use, from 0 to 1.",
            engine.pool_bytes == 0 ? 0.0 : static_cast<double>(engine.live_bytes) / pool);
  out.gauge("kv_cache_pool_bytes", "Size of the cache pool.", pool);
  out.gauge("kv_cache_free_bytes", "Bytes of the cache pool that no request holds.",
            static_cast<double>(engine.free_bytes));
  out.begin("device_memory_bytes", "Memory in use by component.", MetricType::Gauge);
  out.sample({{"device", snapshot.device}, {"component", "weights"}}, static_cast<double>(snapshot.weight_bytes));
  out.sample({{"device", snapshot.device}, {"component", "kv_cache"}}, static_cast<double>(engine.live_bytes));
  out.sample({{"device", snapshot.device}, {"component", "workspace"}}, static_cast<double>(engine.workspace_bytes));
}

}  // namespace

std::vector<MetricFamily> metric_families(const MetricsSnapshot& snapshot) {
  Families out;
  add_requests(snapshot, out);
  add_memory(snapshot, out);
  add_policy_figures(snapshot, out);
  out.counter("engine_steps_total", "Steps of the engine.", static_cast<double>(snapshot.engine.steps_total));
  out.begin("build_info", "Always 1; the labels name the build.", MetricType::Gauge);
  out.sample({{"version", std::string(version())}}, 1);
  out.begin("model_info", "1 once the model is loaded; the labels name it.", MetricType::Gauge);
  out.sample({{"model", snapshot.model}, {"architecture", snapshot.architecture}, {"weights", snapshot.weights}},
             snapshot.loaded ? 1 : 0);
  return out.take();
}

}  // namespace pkv
