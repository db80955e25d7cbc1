// An engine on a tiny random llama, and a sink that records what a request is told.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "kernels/backend.h"
#include "server/engine/engine.h"
#include "server/model/gguf.h"
#include "server/model/model.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/submit.h"

namespace pkv::test {

class RecordingSink : public TokenSink {
 public:
  void on_start() override;
  void on_progress(double prefill_done) override;
  void on_prompt_logprobs(std::span<const TokenLogprob> tokens) override;
  bool on_token(const TokenLogprob& token) override;
  void on_end(RequestResult result) override;
  void on_error(const absl::Status& status) override;

  // Waits for the end.
  void wait();

  // Hooks, called on the engine thread. Set before the sink is submitted.
  std::function<void()> at_start;
  std::function<bool(int32_t tokens_so_far)> at_token;  // false: stop
  std::function<void()> at_end;

  // To be read after wait(), or on the engine thread.
  std::vector<TokenId> ids() const;
  std::vector<TokenLogprob> tokens, prompt_logprobs;
  std::vector<double> progress;
  int32_t starts = 0, ends = 0;
  std::optional<RequestResult> result;
  absl::Status status;

 private:
  void finish();
  std::mutex mutex_;
  std::condition_variable finished_;
};

// A door on the engine thread: whoever passes waits until it is opened.
class Gate {
 public:
  void pass();            // waits until open
  void wait_for_guest();  // until somebody has arrived
  void open();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false, arrived_ = false;
};

// The model's parts in the order of their making.
struct TinyModel {
  std::unique_ptr<Backend> backend;
  std::unique_ptr<TempFile> file;
  std::unique_ptr<GgufFile> gguf;
  std::unique_ptr<Model> model;
};
TinyModel make_tiny_model(std::unique_ptr<Backend> backend, WeightType weights = WeightType::kF32);
TinyModel make_tiny_model(const BackendOptions& options = {.device = "reference"},
                          WeightType weights = WeightType::kF32);

EngineOptions small_options();
EngineOptions watched_options();  // the same; every step makes a snapshot
std::unique_ptr<Engine> make_engine(const Model& model, const EngineOptions& options = small_options());

std::vector<TokenId> random_prompt(int32_t tokens, uint32_t seed);
PolicySpec policy(PolicyKind kind, int64_t budget_tokens = 0);
std::shared_ptr<Request> make_request(std::vector<TokenId> prompt, int32_t max_tokens, const PolicySpec& spec = {});

// Submits and fails the test where that is refused.
std::shared_ptr<RecordingSink> submit(Engine& engine, std::shared_ptr<const Request> request,
                                      std::shared_ptr<RecordingSink> sink = std::make_shared<RecordingSink>());
// Submits and waits.
std::shared_ptr<RecordingSink> run(Engine& engine, std::shared_ptr<const Request> request);

}  // namespace pkv::test
