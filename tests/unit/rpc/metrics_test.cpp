// The metrics before anything happened: all label combinations are there, and the names are the documented ones.
#include <gmock/gmock.h>
#include <prometheus/text_serializer.h>

#include <set>

#include "server/http/metrics_exporter.h"
#include "server/rpc/errors.h"
#include "tests/unit/rpc/rpc_fixture.h"

namespace pkv {
namespace {

MetricsSnapshot empty_snapshot() {
  MetricsSnapshot snapshot;
  std::vector<std::string_view> names;
  for (const PolicyRow& row : policy_table()) {
    snapshot.policies.emplace_back(row.name);
    names.push_back(row.name);
  }
  snapshot.requests = RequestMetrics(names, status_code_names(), rejection_reasons()).snapshot();
  return snapshot;
}

const prometheus::MetricFamily& family(const std::vector<prometheus::MetricFamily>& families, const std::string& name) {
  for (const prometheus::MetricFamily& family : families) {
    if (family.name == "pyramidkv_" + name) return family;
  }
  ADD_FAILURE() << name;
  return families.front();
}

TEST(Metrics, EveryCombinationIsThereFromTheStart) {
  const MetricsSnapshot snapshot = empty_snapshot();
  const std::vector<prometheus::MetricFamily> families = metric_families(snapshot);
  const size_t policies = snapshot.policies.size();
  EXPECT_EQ(family(families, "requests_running").metric.size(), 1u);
  EXPECT_TRUE(family(families, "kv_cache_usage_ratio").metric[0].label.empty());
  EXPECT_EQ(family(families, "requests_total").metric.size(), (policies + 1) * status_code_names().size());
  EXPECT_EQ(family(families, "requests_rejected_total").metric.size(), rejection_reasons().size());
  EXPECT_EQ(family(families, "requests_finished_total").metric.size(), policies * 2);
  EXPECT_EQ(family(families, "requests_by_policy").metric.size(), policies * 2);
  for (const char* name :
       {"kv_cache_held_bytes", "kv_cache_full_equivalent_bytes", "kv_cache_auxiliary_bytes", "kv_cache_saved_bytes",
        "kv_cache_held_byte_seconds_total", "kv_cache_full_equivalent_byte_seconds_total", "prompt_tokens_total",
        "generation_tokens_total"}) {
    EXPECT_EQ(family(families, name).metric.size(), policies) << name;
  }
  EXPECT_EQ(family(families, "kv_cache_evicted_entries_total").metric.size(), policies * 2);
}

TEST(Metrics, ValuesComeFromTheSnapshot) {
  MetricsSnapshot snapshot = empty_snapshot();
  snapshot.engine.pool_bytes = 100;
  snapshot.engine.live_bytes = 25;
  snapshot.engine.free_bytes = 75;
  snapshot.engine.policies["snapkv"].saved_bytes = -5;
  snapshot.engine.policies["h2o"].evicted_entries_total = 3;
  snapshot.engine.policies["h2o"].evicted_while_generating_total = 4;
  const std::string text = prometheus::TextSerializer().Serialize(metric_families(snapshot));
  EXPECT_THAT(text, ::testing::HasSubstr("pyramidkv_kv_cache_usage_ratio 0.25\n"));
  EXPECT_THAT(text, ::testing::HasSubstr("pyramidkv_kv_cache_saved_bytes{policy=\"snapkv\"} -5\n"));
  const std::string evicted = "pyramidkv_kv_cache_evicted_entries_total{policy=\"h2o\",phase=";
  EXPECT_THAT(text, ::testing::HasSubstr(evicted + "\"prefill\"} 3\n"));
  EXPECT_THAT(text, ::testing::HasSubstr(evicted + "\"decode\"} 4\n"));
}

TEST(Metrics, EveryFamilyIsDocumented) {
  std::set<std::string> names;
  for (const prometheus::MetricFamily& family : metric_families(empty_snapshot())) {
    EXPECT_TRUE(names.insert(family.name).second) << family.name;
    EXPECT_TRUE(family.help.ends_with('.')) << family.name;
    EXPECT_EQ(family.type == prometheus::MetricType::Counter, family.name.ends_with("_total")) << family.name;
  }
}

TEST(RequestMetrics, Counts) {
  const std::string_view policies[] = {"full"}, codes[] = {"OK"}, reasons[] = {"QUEUE_FULL"};
  RequestMetrics metrics(policies, codes, reasons);
  metrics.count_end("full", "OK");
  metrics.count_end("full", "OK");
  metrics.count_rejection("QUEUE_FULL");
  const RequestMetrics::Snapshot snapshot = metrics.snapshot();
  EXPECT_EQ(snapshot.requests.at({"full", "OK"}), 2u);
  EXPECT_EQ(snapshot.requests.at({"none", "OK"}), 0u);
  EXPECT_EQ(snapshot.rejected.at("QUEUE_FULL"), 1u);
}

}  // namespace
}  // namespace pkv
