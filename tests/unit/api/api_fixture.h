// A tokenizer of a tiny model, and an engine that computes nothing: what validation and conversion need.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pyramidkv/v1/error_details.pb.h"
#include "server/api/errors.h"
#include "server/api/server_state.h"
#include "server/engine/engine.h"
#include "server/status/field_error.h"
#include "server/text/chat_template.h"
#include "server/text/tokenizer.h"
#include "tests/support/gguf_writer.h"

namespace pkv {

// A preset of the configuration, its settings one line each from the second of the file "f" on.
inline PolicyPreset make_preset(const std::string& name,
                                const std::vector<std::pair<std::string, std::string>>& settings) {
  PolicyPreset preset{.name = name, .where = "f:1"};
  for (const auto& [key, value] : settings) {
    preset.settings.push_back({.key = key, .value = value, .where = "f:" + std::to_string(preset.settings.size() + 2)});
  }
  return preset;
}

// Makes the contracts that a test sets; refuses everything else.
class StillEngine : public Engine {
 public:
  absl::StatusOr<Contract> estimate(const Contract::Query& query) const override { return answer(query); }
  bool has_room(const Contract&) const override { return false; }
  absl::Duration least_prompt_time(const Contract&) const override { return prompt_time; }
  absl::StatusOr<Prepared> prepare(std::shared_ptr<const Request> request) const override {
    absl::StatusOr<Contract> contract = answer(query_of(*request));
    if (!contract.ok()) return contract.status();
    return Prepared::make(std::move(request), *std::move(contract));
  }
  absl::Status submit(Prepared, const JobClaim&, std::shared_ptr<TokenSink>) override {
    return absl::UnavailableError("computes nothing");
  }
  void cancel(const TokenSink*) override {}
  void close() override {}
  bool drain(absl::Time) override { return true; }
  absl::Duration stalled_for() const override { return absl::ZeroDuration(); }
  Engine::State state() const override { return Engine::State::kServing; }
  absl::Status failure() const override { return absl::OkStatus(); }
  std::shared_ptr<const EngineStats> stats() const override { return std::make_shared<EngineStats>(); }
  const EngineOptions& options() const override { return options_; }

  std::function<absl::StatusOr<Contract>(const Contract::Query&)> answer = [](const Contract::Query&) {
    return Contract();
  };
  absl::Duration prompt_time;  // of every contract

 private:
  EngineOptions options_;
};

// A refusal with what its payloads say.
struct DecodedError {
  absl::StatusCode code = absl::StatusCode::kOk;
  std::string message, reason, domain, field, description;
  std::map<std::string, std::string> metadata;
  double retry_seconds = 0;
};

inline DecodedError decode_error(const absl::Status& status) {
  DecodedError out{.code = status.code(), .message = std::string(status.message())};
  if (const auto payload = status.GetPayload("type.googleapis.com/google.rpc.ErrorInfo")) {
    pyramidkv::v1::ErrorInfo info;
    EXPECT_TRUE(info.ParseFromString(std::string(*payload)));
    out.reason = info.reason();
    out.domain = info.domain();
    out.metadata = {info.metadata().begin(), info.metadata().end()};
  }
  if (const std::optional<FieldError> named = field_error_of(status)) {
    out.field = named->field;
    out.description = named->description;
  }
  out.retry_seconds = absl::ToDoubleSeconds(error_retry_delay(status));
  return out;
}

class ApiTest : public ::testing::Test {
 protected:
  static constexpr int32_t kMaxPositions = 100;
  static constexpr int32_t kVocab = 320;

  ApiTest() : model_file_(test::make_tiny_llama({.vocab = kVocab})), log_("error", "text") {
    file_ = *GgufFile::open(model_file_.path());
    tokenizer_ = *load_tokenizer(*file_);
    chat_ = std::make_unique<ChatTemplate>(*file_->string("tokenizer.chat_template"), *tokenizer_);
    state_ = std::make_unique<ServerState>(*PolicyCatalog::create(policies(), KvDtype::kF16), log_, 7);
    served_ = {.id = "tiny",
               .shape = {.kv_heads = 2, .max_positions = kMaxPositions},
               .tokenizer = tokenizer_.get(),
               .chat_template = chat_.get(),
               .engine = &engine_};
    state_->publish(&served_);
  }

  static PoliciesConfig policies() {
    PoliciesConfig config;
    config.presets.push_back(make_preset("small", {{"policy", "pyramidkv"}, {"tokens", "64"}, {"beta", "10"}}));
    return config;
  }

  test::TempFile model_file_;
  Log log_;
  std::unique_ptr<GgufFile> file_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatTemplate> chat_;
  StillEngine engine_;
  std::unique_ptr<ServerState> state_;
  ServedModel served_;
};

}  // namespace pkv
