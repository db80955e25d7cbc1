// /metrics over HTTP after some traffic, and promtool's opinion of it where promtool is installed.
#include <gmock/gmock.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <sstream>

#include "server/policy/registry.h"
#include "tests/integration/server_fixture.h"
#include "tests/support/http_client.h"

namespace pkv {
namespace {

using test::http_get;

// Every sample of /metrics by its name and labels, as they are written.
std::map<std::string, double> scrape(int port) {
  const std::string response = http_get(port, "/metrics");
  EXPECT_THAT(response, ::testing::StartsWith("HTTP/1.1 200 "));
  std::istringstream lines(response.substr(response.find("\r\n\r\n") + 4));
  std::map<std::string, double> samples;
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line[0] == '#') continue;
    const size_t blank = line.rfind(' ');
    EXPECT_TRUE(samples.emplace(line.substr(0, blank), std::stod(line.substr(blank + 1))).second) << line;
  }
  return samples;
}

class Scrape {
 public:
  explicit Scrape(int port) : samples_(scrape(port)) {}
  double value(const std::string& name, const std::string& policy) const {
    const auto found = samples_.find("pyramidkv_" + name + "{policy=\"" + policy + "\"}");
    if (found != samples_.end()) return found->second;
    ADD_FAILURE() << name << " " << policy;
    return 0;
  }
  // Over all policies.
  double sum(const std::string& name) const {
    double sum = 0;
    for (const PolicyRow& row : policy_table()) sum += value(name, std::string(row.name));
    return sum;
  }
  const std::map<std::string, double>& samples() const { return samples_; }

 private:
  std::map<std::string, double> samples_;
};

// The one in the middle of a text, whole.
std::string middle_character(const std::string& text) {
  const auto continues = [&](size_t i) {
    return i < text.size() && (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80;
  };
  size_t begin = text.size() / 2;
  while (continues(begin)) --begin;
  size_t end = begin + 1;
  while (continues(end)) ++end;
  return text.substr(begin, end - begin);
}

// What the replies of completed requests say.
struct Replies {
  uint64_t completed = 0, prompt_tokens = 0, tokens = 0, with_recall = 0, compressed = 0;
  int64_t saved_bytes = 0;
  double held_byte_seconds = 0, full_byte_seconds = 0;

  void add(const pb::Usage& usage, const pb::CacheReport& report) {
    ++completed;
    prompt_tokens += usage.prompt_tokens();
    tokens += usage.completion_tokens();
    with_recall += report.has_recall() ? 1 : 0;
    compressed += report.compressions() > 0 ? 1 : 0;
    saved_bytes += report.saved_bytes();
    add_byte_seconds(report);
  }
  void add_byte_seconds(const pb::CacheReport& report) {
    EXPECT_GT(report.held_byte_seconds(), 0);
    held_byte_seconds += report.held_byte_seconds();
    full_byte_seconds += report.full_byte_seconds();
  }
};

TEST_F(ServerTest, MetricsTellWhatHappened) {
  start_and_load([](Config& config) { config.metrics.listen = "127.0.0.1:0"; });
  pb::GenerateRequest wish = request("hello world", 7);
  pb::GenerateResponse reply;
  ASSERT_TRUE(generate(wish, reply).ok());
  wish.GetReflection()->MutableUnknownFields(&wish)->AddVarint(12, 1);
  EXPECT_FALSE(generate(wish, reply).ok());
  ASSERT_TRUE(eventually_idle());
  ASSERT_TRUE(eventually([&] { return app_->open_calls() == 0; }));  // an end is counted once it is sent

  const std::string response = http_get(app_->metrics_port(), "/metrics");
  ASSERT_THAT(response, ::testing::StartsWith("HTTP/1.1 200"));
  for (const char* line :
       {"pyramidkv_requests_running 0", "pyramidkv_requests_total{policy=\"full\",code=\"OK\"} 1",
        "pyramidkv_requests_total{policy=\"none\",code=\"UNIMPLEMENTED\"} 1",
        "pyramidkv_requests_rejected_total{reason=\"UNIMPLEMENTED\"} 1", "pyramidkv_calls{phase=\"engine\"} 0",
        "pyramidkv_requests_finished_total{policy=\"full\",finish_reason=\"length\"} 1",
        "pyramidkv_generation_tokens_total{policy=\"full\"} 7", "pyramidkv_kv_cache_usage_ratio 0",
        "pyramidkv_kv_cache_pool_bytes 134217728",
        "pyramidkv_model_info{model=\"tiny\",architecture=\"llama\",weights=\"F32\"} 1"}) {
    EXPECT_THAT(response, ::testing::HasSubstr(std::string(line) + "\n"));
  }
}

TEST_F(ServerTest, MetricsAndRepliesAgree) {
  start_and_load([](Config& config) { config.metrics.listen = "127.0.0.1:0"; });
  const std::string prompt(150, 'p');
  Replies replies;
  const auto ask = [&](const pb::GenerateRequest& wish) {
    pb::GenerateResponse reply;
    const grpc::Status status = generate(wish, reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
    replies.add(reply.usage(), reply.cache());
    return reply;
  };
  const pb::GenerateResponse whole = ask(request("hello world", 20));
  pb::GenerateRequest wish = request(prompt, 12);
  wish.mutable_cache_policy()->mutable_snapkv();
  wish.mutable_cache_policy()->mutable_budget()->set_tokens(32);
  ask(wish);
  wish.mutable_cache_policy()->mutable_random();
  ask(wish);
  wish.mutable_cache_policy()->mutable_h2o();
  wish.mutable_cache_policy()->mutable_budget()->set_scope(pb::BUDGET_SCOPE_TOTAL);
  ask(wish);
  wish = request("nothing but a prompt", 0);
  wish.mutable_output()->set_echo(true);
  ask(wish);
  // Stopped by a string of its own text.
  wish = request("hello world", 20);
  wish.mutable_sampling()->add_stop(middle_character(whole.choices(0).text()));
  const pb::GenerateResponse stopped = ask(wish);
  EXPECT_EQ(stopped.choices(0).finish_reason(), pb::FINISH_REASON_STOP);
  EXPECT_LT(stopped.usage().completion_tokens(), 20u);
  // Streamed, and compared.
  wish = request(prompt, 9);
  wish.mutable_cache_policy()->mutable_pyramidkv();
  wish.mutable_cache_policy()->mutable_budget()->set_tokens(24);
  grpc::Status status;
  const pb::StreamEnd end = stream(wish, status).back().end();
  replies.add(end.usage(), end.cache());
  pb::CompareRequest compared;
  *compared.mutable_request() = wish;
  compared.add_policies()->mutable_keydiff();
  compared.mutable_policies(0)->mutable_budget()->set_tokens(24);
  pb::CompareResponse comparison;
  grpc::ClientContext context;
  ASSERT_TRUE(generation_->Compare(&context, compared, &comparison).ok());
  replies.add(comparison.baseline().usage(), comparison.baseline().cache());
  replies.add_byte_seconds(comparison.comparisons(0).cache());
  ASSERT_TRUE(eventually_idle());
  const Scrape before(app_->metrics_port());

  // Cancelled: counted as far as it came, but by nothing that is of completed requests.
  wish = request(prompt, kEndless);
  wish.mutable_cache_policy()->mutable_tova();
  OpenStream cancelled(*generation_, wish);
  ASSERT_TRUE(cancelled.read_to_delta());
  cancelled.cancel();
  EXPECT_EQ(cancelled.finish().error_code(), grpc::StatusCode::CANCELLED);
  ASSERT_TRUE(eventually_idle());

  const Scrape now(app_->metrics_port());
  EXPECT_EQ(now.sum("request_kv_cache_full_bytes_total") - now.sum("request_kv_cache_allocated_bytes_total") -
                now.sum("request_kv_cache_auxiliary_bytes_total"),
            static_cast<double>(replies.saved_bytes));
  for (const char* name : {"request_duration_seconds", "request_kv_cache_keep_ratio", "request_kv_cache_peak_bytes"}) {
    EXPECT_EQ(now.sum(std::string(name) + "_count"), static_cast<double>(replies.completed)) << name;
  }
  EXPECT_EQ(now.sum("request_kv_cache_recall_ratio_count"), static_cast<double>(replies.with_recall));
  EXPECT_LT(replies.with_recall, replies.completed);  // random observes nothing
  EXPECT_EQ(before.sum("generation_tokens_total"), static_cast<double>(replies.tokens));
  EXPECT_EQ(before.sum("prompt_tokens_total"), static_cast<double>(replies.prompt_tokens));
  EXPECT_EQ(before.sum("time_to_first_token_seconds_count"), static_cast<double>(replies.completed - 1));
  EXPECT_EQ(before.sum("kv_cache_compression_duration_seconds_count"), static_cast<double>(replies.compressed));
  for (const Scrape* scrape : {&before, &now}) {
    EXPECT_EQ(scrape->sum("inter_token_latency_seconds_count"),
              scrape->sum("generation_tokens_total") - scrape->sum("time_to_first_token_seconds_count"));
  }
  for (const char* name : {"request_queue_duration_seconds", "request_prefill_duration_seconds"}) {
    EXPECT_EQ(now.sum(std::string(name) + "_count"), static_cast<double>(replies.completed + 1)) << name;
  }
  EXPECT_GT(now.value("generation_tokens_total", "tova"), 0);
  EXPECT_GT(now.value("kv_cache_held_byte_seconds_total", "tova"), 0);
  EXPECT_EQ(now.value("request_kv_cache_full_bytes_total", "tova"), 0);
  EXPECT_NEAR(before.sum("kv_cache_held_byte_seconds_total"), replies.held_byte_seconds,
              1e-6 * replies.held_byte_seconds);
  EXPECT_NEAR(before.sum("kv_cache_full_equivalent_byte_seconds_total"), replies.full_byte_seconds,
              1e-6 * replies.full_byte_seconds);
  // Whatever happened, no series came that was not there.
  EXPECT_EQ(now.samples().size(), before.samples().size());
}

TEST_F(ServerTest, ProbesAndStateFollowTheModel) {
  start([](Config& config) { config.metrics.listen = "127.0.0.1:0"; });
  const int port = app_->metrics_port();
  EXPECT_THAT(http_get(port, "/healthz"), ::testing::StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(http_get(port, "/readyz"), ::testing::StartsWith("HTTP/1.1 503 "));
  EXPECT_EQ(scrape(port).at("pyramidkv_server_state{state=\"loading\"}"), 1);
  EXPECT_EQ(scrape(port).count("pyramidkv_kv_cache_layer_held_bytes{policy=\"full\",layer=\"0\"}"), 0u);
  ASSERT_TRUE(app_->load().ok());
  EXPECT_THAT(http_get(port, "/readyz"), ::testing::StartsWith("HTTP/1.1 200 "));
  EXPECT_EQ(scrape(port).at("pyramidkv_server_state{state=\"serving\"}"), 1);
  EXPECT_EQ(scrape(port).at("pyramidkv_kv_cache_layer_held_bytes{policy=\"full\",layer=\"0\"}"), 0);
  // Nothing that a library adds of itself.
  for (const auto& [series, value] : scrape(port)) {
    EXPECT_TRUE(series.starts_with("pyramidkv_") || series.starts_with("process_")) << series;
  }
}

TEST_F(ServerTest, LayersCanBeLeftOut) {
  start_and_load([](Config& config) {
    config.metrics.listen = "127.0.0.1:0";
    config.metrics.layers = false;
  });
  EXPECT_EQ(scrape(app_->metrics_port()).count("pyramidkv_kv_cache_layer_held_bytes{policy=\"full\",layer=\"0\"}"), 0u);
}

TEST_F(ServerTest, PromtoolAcceptsTheMetrics) {
  if (std::system("promtool --version > /dev/null 2>&1") != 0) GTEST_SKIP() << "promtool is not installed";
  start_and_load([](Config& config) { config.metrics.listen = "127.0.0.1:0"; });
  const std::string response = http_get(app_->metrics_port(), "/metrics");
  const size_t body = response.find("\r\n\r\n");
  ASSERT_NE(body, std::string::npos);
  std::FILE* promtool = popen("promtool check metrics", "w");
  ASSERT_NE(promtool, nullptr);
  const std::string text = response.substr(body + 4);
  EXPECT_EQ(std::fwrite(text.data(), 1, text.size(), promtool), text.size());
  EXPECT_EQ(pclose(promtool), 0);
}

}  // namespace
}  // namespace pkv
