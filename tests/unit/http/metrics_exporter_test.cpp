// The paths of the metrics port, without an engine.
#include "server/http/metrics_exporter.h"

#include <gmock/gmock.h>

#include "tests/support/http_client.h"

namespace pkv {
namespace {

using test::http_get;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(MetricsExporter, ProbesFollowTheirSources) {
  absl::Status live, ready = absl::UnavailableError("the model is being loaded");
  const auto exporter =
      MetricsExporter::start("127.0.0.1:0", {.snapshot = [] { return MetricsSnapshot(); },
                                             .probes = {.live = [&] { return live; }, .ready = [&] { return ready; }}});
  ASSERT_TRUE(exporter.ok()) << exporter.status();
  const int port = (*exporter)->port();
  for (const char* path : {"/health", "/healthz"}) {
    EXPECT_THAT(http_get(port, path), AllOf(StartsWith("HTTP/1.1 200 OK\r\n"), EndsWith("\r\n\r\nok\n")));
  }
  EXPECT_THAT(http_get(port, "/readyz"),
              AllOf(StartsWith("HTTP/1.1 503 "), EndsWith("\r\n\r\nthe model is being loaded\n")));
  EXPECT_THAT(http_get(port, "/metrics"),
              AllOf(StartsWith("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"),
                    HasSubstr("\npyramidkv_server_state{state=\"loading\"} 1\n")));
  EXPECT_THAT(http_get(port, "/"), StartsWith("HTTP/1.1 404 Not Found\r\n"));
  const std::string post = test::HttpConnection(port).ask("POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc");
  EXPECT_THAT(post, AllOf(StartsWith("HTTP/1.1 405 Method Not Allowed\r\n"), HasSubstr("\r\nAllow: GET, HEAD\r\n")));
  EXPECT_THAT(http_get(port, "/metrics/"), StartsWith("HTTP/1.1 404 Not Found\r\n"));
}

TEST(MetricsExporter, AnAddressThatIsTakenNamesTheSettingAndTheWayOut) {
  const MetricsExporter::Sources sources{
      .snapshot = [] { return MetricsSnapshot(); },
      .probes = {.live = [] { return absl::OkStatus(); }, .ready = [] { return absl::OkStatus(); }}};
  const auto first = MetricsExporter::start("127.0.0.1:0", sources);
  ASSERT_TRUE(first.ok()) << first.status();
  const std::string listen = "127.0.0.1:" + std::to_string((*first)->port());
  const absl::Status second = MetricsExporter::start(listen, sources).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(second.message(), "metrics.listen: cannot listen on " + listen +
                                  ": Address already in use; choose another with --set metrics.listen=HOST:PORT, or "
                                  "serve no metrics with --set metrics.listen=");
}

}  // namespace
}  // namespace pkv
