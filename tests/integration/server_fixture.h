// A server of a tiny model on a free port of 127.0.0.1, and stubs to talk to it.
#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "pyramidkv/v1/error_details.pb.h"
#include "pyramidkv/v1/generation.grpc.pb.h"
#include "pyramidkv/v1/model.grpc.pb.h"
#include "pyramidkv/v1/stats.grpc.pb.h"
#include "server/app.h"
#include "server/model/fingerprint.h"
#include "server/policy/lane_table.h"
#include "tests/support/gguf_writer.h"

namespace pkv {

namespace pb = ::pyramidkv::v1;

// Of a lane table, for a model of two layers of two KV heads.
inline test::TempFile lane_table_of(const std::string& model_path) {
  const auto file = GgufFile::open(model_path);
  EXPECT_TRUE(file.ok()) << file.status();
  const LaneTable table{.model = model_fingerprint(**file),
                        .layers = 2,
                        .kv_heads = 2,
                        .anchors = {{.keep = 0.5, .shares = {0.5, 1.5, 1, 1}}}};
  return test::TempFile(format_lane_table(table));
}

class ServerTest : public ::testing::Test {
 protected:
  // Long enough that an answer of kEndless tokens never ends within a test.
  static constexpr int32_t kContext = 1 << 16;
  static constexpr uint32_t kEndless = 60000;

  void start(const std::function<void(Config&)>& change = {}, const AppOptions& options = {}) {
    Config config;
    config.server.listen = "127.0.0.1:0";
    config.metrics.listen = "";
    config.model.path = model_file_.path();
    config.model.id = "tiny";
    config.model.lane_table = lane_table_file_.path();
    config.cache.pool_bytes = uint64_t{128} << 20;
    config.runtime.threads = 2;
    if (change) change(config);
    absl::StatusOr<std::unique_ptr<App>> app = App::start(config, log_, options);
    ASSERT_TRUE(app.ok()) << app.status();
    app_ = *std::move(app);
    channel_ = connect();
    generation_ = pb::GenerationService::NewStub(channel_);
    model_ = pb::ModelService::NewStub(channel_);
    stats_ = pb::StatsService::NewStub(channel_);
  }
  void start_and_load(const std::function<void(Config&)>& change = {}, const AppOptions& options = {}) {
    ASSERT_NO_FATAL_FAILURE(start(change, options));
    const absl::Status loaded = app_->load();
    ASSERT_TRUE(loaded.ok()) << loaded;
  }
  std::shared_ptr<grpc::Channel> connect() const {
    return grpc::CreateChannel("127.0.0.1:" + std::to_string(app_->port()), grpc::InsecureChannelCredentials());
  }

  // A greedy request that runs to its last token.
  static pb::GenerateRequest request(const std::string& prompt, uint32_t max_tokens) {
    pb::GenerateRequest request;
    request.set_prompt(prompt);
    request.mutable_sampling()->set_temperature(0);
    request.mutable_sampling()->set_ignore_eos(true);
    request.mutable_sampling()->set_max_tokens(max_tokens);
    return request;
  }
  grpc::Status generate(const pb::GenerateRequest& request, pb::GenerateResponse& response) {
    grpc::ClientContext context;
    return generation_->Generate(&context, request, &response);
  }
  std::vector<pb::GenerateStreamResponse> stream(const pb::GenerateRequest& request, grpc::Status& status) {
    grpc::ClientContext context;
    const auto reader = generation_->GenerateStream(&context, request);
    std::vector<pb::GenerateStreamResponse> events;
    for (pb::GenerateStreamResponse event; reader->Read(&event);) events.push_back(event);
    status = reader->Finish();
    return events;
  }
  pb::Stats stats(bool requests = false) {
    grpc::ClientContext context;
    pb::GetStatsRequest request;
    request.set_include_requests(requests);
    pb::GetStatsResponse response;
    EXPECT_TRUE(stats_->GetStats(&context, request, &response).ok());
    EXPECT_EQ(response.stats().memory().kv_pool_bytes(),
              response.stats().memory().kv_live_bytes() + response.stats().memory().kv_free_bytes());
    return response.stats();
  }
  pb::PolicyStats policy_stats(const std::string& policy) {
    const pb::Stats now = stats();
    for (const pb::PolicyStats& row : now.policies()) {
      if (row.policy() == policy) return row;
    }
    ADD_FAILURE() << policy;
    return {};
  }
  // Asks until the answer is good; false after a minute.
  template <typename Condition>
  bool eventually(const Condition& condition) {
    for (const absl::Time end = absl::Now() + absl::Minutes(1); absl::Now() < end;
         absl::SleepFor(absl::Milliseconds(2))) {
      if (condition()) return true;
    }
    return false;
  }
  bool eventually_idle() {
    return eventually([this] {
      const pb::Stats now = stats();
      return now.scheduler().running() == 0 && now.scheduler().waiting() == 0 && now.memory().kv_live_bytes() == 0;
    });
  }

  static pb::ErrorInfo error_info(const grpc::Status& status) {
    pb::ErrorStatus details;
    EXPECT_TRUE(details.ParseFromString(status.error_details()));
    pb::ErrorInfo info;
    for (const google::protobuf::Any& any : details.details()) {
      if (any.type_url() == "type.googleapis.com/google.rpc.ErrorInfo" && info.ParseFromString(any.value()))
        return info;
    }
    return {};
  }
  static std::string reason(const grpc::Status& status) { return error_info(status).reason(); }
  static std::map<std::string, std::string> metadata(const grpc::Status& status) {
    const pb::ErrorInfo info = error_info(status);
    return {info.metadata().begin(), info.metadata().end()};
  }

  const Log log_{"error", "text"};
  const test::TempFile model_file_ = test::make_tiny_llama({.context = kContext});
  const test::TempFile lane_table_file_ = lane_table_of(model_file_.path());
  std::unique_ptr<App> app_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<pb::GenerationService::Stub> generation_;
  std::unique_ptr<pb::ModelService::Stub> model_;
  std::unique_ptr<pb::StatsService::Stub> stats_;
};

// One streamed generation that a test reads step by step.
class OpenStream {
 public:
  OpenStream(pb::GenerationService::Stub& stub, const pb::GenerateRequest& request)
      : reader_(stub.GenerateStream(&context_, request)) {}
  ~OpenStream() {
    if (!finished_) {
      context_.TryCancel();
      finish();
    }
  }
  bool read(pb::GenerateStreamResponse& event) { return reader_->Read(&event); }
  // False where the stream ended before a delta came.
  bool read_to_delta() {
    for (pb::GenerateStreamResponse event; reader_->Read(&event);) {
      if (event.has_delta()) return true;
    }
    return false;
  }
  void cancel() { context_.TryCancel(); }
  grpc::Status finish() {
    for (pb::GenerateStreamResponse event; reader_->Read(&event);) {
    }
    finished_ = true;
    return reader_->Finish();
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<pb::GenerateStreamResponse>> reader_;
  bool finished_ = false;
};

}  // namespace pkv
