// The metrics by name: which series there are before anything happened, what their values are, and that docs/metrics.md
// lists them.
#include <gmock/gmock.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <regex>
#include <set>

#include "server/api/errors.h"
#include "server/http/metrics_exporter.h"
#include "server/policy/registry.h"
#include "tests/unit/api/api_fixture.h"

namespace pkv {
namespace {

constexpr size_t kLayers = 2;

MetricsSnapshot empty_snapshot() { return {.requests = RequestMetrics(request_labels()).snapshot()}; }

MetricsSnapshot loaded_snapshot(const EngineStats& engine = {}) {
  MetricsSnapshot snapshot = empty_snapshot();
  snapshot.state = Engine::State::kServing;
  auto stats = std::make_shared<EngineStats>(engine);
  for (const PolicyRow& row : policy_table()) {
    stats->policies[std::string(row.name)].layer_held_bytes.resize(kLayers);
  }
  snapshot.engine = std::move(stats);
  return snapshot;
}

std::string text_of(const MetricsSnapshot& snapshot) {
  return prometheus::TextSerializer().Serialize(metric_families(snapshot));
}

const prometheus::MetricFamily& family(const std::vector<prometheus::MetricFamily>& families, const std::string& name) {
  for (const prometheus::MetricFamily& family : families) {
    if (family.name == "pyramidkv_" + name) return family;
  }
  ADD_FAILURE() << name;
  return families.front();
}

TEST(Metrics, EveryCombinationIsThereFromTheStart) {
  const std::vector<prometheus::MetricFamily> families = metric_families(empty_snapshot());
  const size_t policies = policy_table().size();
  EXPECT_EQ(family(families, "requests_running").metric.size(), 1u);
  EXPECT_TRUE(family(families, "kv_cache_usage_ratio").metric[0].label.empty());
  EXPECT_EQ(family(families, "server_state").metric.size(), 4u);
  EXPECT_EQ(family(families, "requests_rejected_total").metric.size(), rejection_reasons().size());
  EXPECT_EQ(family(families, "step_tokens").metric.size(), 1u);
  for (const char* name :
       {"kv_cache_held_bytes", "kv_cache_allocated_bytes", "kv_cache_full_equivalent_bytes", "kv_cache_auxiliary_bytes",
        "kv_cache_saved_bytes", "kv_cache_held_byte_seconds_total", "kv_cache_full_equivalent_byte_seconds_total",
        "prompt_tokens_total", "generation_tokens_total", "time_to_first_token_seconds", "inter_token_latency_seconds",
        "request_kv_cache_recall_ratio", "request_kv_cache_full_bytes_total"}) {
    EXPECT_EQ(family(families, name).metric.size(), policies) << name;
  }
  for (const char* name : {"requests_finished_total", "requests_by_policy", "kv_cache_evicted_entries_total",
                           "kv_cache_compressions_total"}) {
    EXPECT_EQ(family(families, name).metric.size(), policies * 2) << name;
  }
}

// A label of a series, by name.
std::string label(const prometheus::ClientMetric& metric, const std::string& name) {
  for (const auto& [key, value] : metric.label) {
    if (key == name) return value;
  }
  return "";
}

TEST(Metrics, OnlyStatusesThatCanOccurAreThereFromTheStart) {
  std::map<std::string, std::set<std::string>> codes;
  const std::vector<prometheus::MetricFamily> families = metric_families(empty_snapshot());
  for (const prometheus::ClientMetric& metric : family(families, "requests_total").metric) {
    codes[label(metric, "policy")].insert(label(metric, "code"));
  }
  EXPECT_EQ(codes.size(), policy_table().size() + 1);
  EXPECT_THAT(codes["none"],
              ::testing::UnorderedElementsAre("INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED",
                                              "FAILED_PRECONDITION", "UNIMPLEMENTED", "UNAVAILABLE", "CANCELLED",
                                              "UNAUTHENTICATED", "PERMISSION_DENIED", "DEADLINE_EXCEEDED", "INTERNAL"));
  EXPECT_THAT(codes["full"],
              ::testing::UnorderedElementsAre("OK", "CANCELLED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL",
                                              "UNAVAILABLE", "INVALID_ARGUMENT"));
  EXPECT_EQ(codes["snapkv"].count("FAILED_PRECONDITION"), 1u);  // a recall that is out of reach
  EXPECT_EQ(codes["l2norm"].count("FAILED_PRECONDITION"), 0u);
}

TEST(Metrics, LabelsOfTheModelComeWithTheModelAndNothingElseChanges) {
  const auto names = [](const MetricsSnapshot& snapshot) {
    std::set<std::string> series;
    for (const prometheus::MetricFamily& family : metric_families(snapshot)) {
      for (const prometheus::ClientMetric& metric : family.metric) {
        std::string name = family.name;
        for (const auto& [key, value] : metric.label) name.append("|").append(key).append("=").append(value);
        EXPECT_TRUE(series.insert(name).second) << name;
      }
    }
    return series;
  };
  const std::set<std::string> before = names(empty_snapshot()), after = names(loaded_snapshot());
  EXPECT_TRUE(std::includes(after.begin(), after.end(), before.begin(), before.end()));
  std::vector<std::string> added;
  std::set_difference(after.begin(), after.end(), before.begin(), before.end(), std::back_inserter(added));
  EXPECT_EQ(added.size(), 1 + 3 + policy_table().size() * kLayers);
  MetricsSnapshot without = loaded_snapshot();
  without.layers = false;
  EXPECT_EQ(names(without).size(), before.size() + 1 + 3);
}

TEST(Metrics, ValuesComeFromTheSnapshot) {
  EngineStats engine{.pool_bytes = 100, .live_bytes = 25, .free_bytes = 75, .reserved_bytes = 60};
  engine.policies["snapkv"].saved_bytes = -5;
  engine.policies["h2o"].evicted_entries_total = 3;
  engine.policies["h2o"].evicted_while_generating_total = 4;
  engine.policies["h2o"].prompts_compressed_total = 6;
  engine.policies["tova"].finished_total["stop"] = 8;
  MetricsSnapshot snapshot = loaded_snapshot(engine);
  snapshot.device = "cpu";
  snapshot.weight_bytes = 1234;
  const std::string text = text_of(snapshot);
  for (const char* line :
       {"kv_cache_usage_ratio 0.25", "kv_cache_reserved_bytes 60", "kv_cache_saved_bytes{policy=\"snapkv\"} -5",
        "kv_cache_evicted_entries_total{policy=\"h2o\",phase=\"prefill\"} 3",
        "kv_cache_evicted_entries_total{policy=\"h2o\",phase=\"decode\"} 4",
        "kv_cache_compressions_total{policy=\"h2o\",outcome=\"compressed\"} 6",
        "kv_cache_compressions_total{policy=\"h2o\",outcome=\"unchanged\"} 0",
        "requests_finished_total{policy=\"tova\",finish_reason=\"stop\"} 8", "server_state{state=\"serving\"} 1",
        "server_state{state=\"loading\"} 0", "device_memory_bytes{device=\"cpu\",component=\"weights\"} 1234",
        "device_memory_bytes{device=\"cpu\",component=\"kv_cache\"} 25"}) {
    EXPECT_THAT(text, ::testing::HasSubstr("\npyramidkv_" + std::string(line) + "\n"));
  }
}

TEST(Metrics, ADevicesMemoryIsToldWhole) {
  const EngineStats engine{
      .live_bytes = 25,
      .free_bytes = 75,
      .device = DeviceMemory{
          .weights = 1000, .lazy = 110, .tensors = 50, .staged = 7, .used = 1200, .reserved = 1300, .pinned = 64}};
  MetricsSnapshot snapshot = loaded_snapshot(engine);
  snapshot.device = "cuda";
  snapshot.weight_bytes = 999;  // what the model says; the device knows better
  std::map<std::string, double> components;
  for (const prometheus::MetricFamily& family : metric_families(snapshot)) {
    if (family.name != "pyramidkv_device_memory_bytes") continue;
    for (const prometheus::ClientMetric& metric : family.metric) {
      ASSERT_EQ(metric.label.size(), 2u);
      EXPECT_EQ(metric.label[0].value, "cuda");
      components[metric.label[1].value] = metric.gauge.value;
    }
  }
  const std::map<std::string, double> expected = {{"weights", 1000}, {"kv_cache", 25}, {"kv_cache_free", 75},
                                                  {"workspace", 50}, {"step", 7},      {"other", 43},
                                                  {"idle", 100},     {"staging", 64}};
  EXPECT_EQ(components, expected);
}

TEST(Metrics, HistogramsAreCumulative) {
  auto histograms = std::make_shared<EngineHistograms>();
  for (const double seconds : {0.02, 0.3, 0.4, 1000.0}) {
    histograms->policies[0].time_to_first_token.observe(seconds);
  }
  const std::string text = text_of(loaded_snapshot({.histograms = histograms}));
  const std::string name = "\npyramidkv_time_to_first_token_seconds";
  for (const char* line :
       {"_count{policy=\"full\"} 4", "_bucket{policy=\"full\",le=\"0.01\"} 0", "_bucket{policy=\"full\",le=\"0.25\"} 1",
        "_bucket{policy=\"full\",le=\"0.5\"} 3", "_bucket{policy=\"full\",le=\"100\"} 3",
        "_bucket{policy=\"full\",le=\"+Inf\"} 4", "_count{policy=\"h2o\"} 0"}) {
    EXPECT_THAT(text, ::testing::HasSubstr(name + line + "\n"));
  }
  EXPECT_THAT(text, ::testing::HasSubstr(name + "_sum{policy=\"full\"} 1000.7"));
}

TEST(Metrics, NamesAndHelpTextsAreWellFormed) {
  for (const prometheus::MetricFamily& family : metric_families(loaded_snapshot())) {
    EXPECT_TRUE(family.help.ends_with('.')) << family.name;
    EXPECT_EQ(family.type == prometheus::MetricType::Counter, family.name.ends_with("_total")) << family.name;
    EXPECT_TRUE(family.name.starts_with("pyramidkv_") || family.name.starts_with("process_")) << family.name;
  }
}

std::string type_name(prometheus::MetricType type) {
  switch (type) {
    case prometheus::MetricType::Counter:
      return "counter";
    case prometheus::MetricType::Gauge:
      return "gauge";
    case prometheus::MetricType::Histogram:
      return "histogram";
    default:
      return "?";
  }
}

// "| `name` | type | labels | ...": one line each of the documentation's table, and of what is exported.
TEST(Metrics, TheDocumentationListsWhatIsExported) {
  std::set<std::string> documented, exported;
  std::ifstream file(PKV_DOCS_DIR "/metrics.md");
  const std::regex row("\\| `([a-z_]+)` \\| ([a-z]+) \\| ([a-z_, ]*)\\|.*");
  std::smatch match;
  for (std::string line; std::getline(file, line);) {
    if (!std::regex_match(line, match, row)) continue;
    std::string labels = match[3];
    labels.erase(std::remove(labels.begin(), labels.end(), ' '), labels.end());
    EXPECT_TRUE(documented.insert(match.str(1) + " " + match.str(2) + " " + labels).second) << line;
  }
  for (const prometheus::MetricFamily& family : metric_families(loaded_snapshot())) {
    std::string labels;
    ASSERT_FALSE(family.metric.empty()) << family.name;
    for (const auto& [name, value] : family.metric.front().label) labels += labels.empty() ? name : "," + name;
    exported.insert(family.name + " " + type_name(family.type) + " " + labels);
  }
  EXPECT_EQ(documented, exported);
}

}  // namespace
}  // namespace pkv
