// What a call of OpenAI's API sends while its answer is not there yet.
#include "server/http/openai_call.h"

#include <gmock/gmock.h>

#include <condition_variable>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/api/call_fixture.h"

namespace pkv {
namespace {

using ::testing::ElementsAre;

// A client that takes everything at once.
class KeptExchange final : public HttpExchange {
 public:
  void respond(HttpResponse response, Done done) override { end(std::move(response.body), std::move(done)); }
  void begin(HttpResponse, Done done) override { done(true); }
  void write(std::string part, Done done) override {
    parts_.push_back(std::move(part));
    done(true);
  }
  void end(std::string, Done done) override {
    done(true);
    ended_.set_value();
  }
  void when_gone(std::function<void()>) override {}
  std::vector<std::string> wait_for_parts() {
    ended_.get_future().wait();
    return parts_;
  }

 private:
  std::vector<std::string> parts_;  // between its begin and its end
  std::promise<void> ended_;
};

class OpenAiCallTest : public CallTest {
 protected:
  // The call's clock.
  absl::Time look() {
    const std::lock_guard lock(mutex_);
    ++looks_;
    looked_.notify_all();
    return now_;
  }
  // Until the call has looked at the clock once more.
  void at_second(int second, const std::function<void()>& happens) {
    std::unique_lock lock(mutex_);
    now_ = absl::FromUnixSeconds(second);
    const int before = looks_;
    lock.unlock();
    happens();
    lock.lock();
    looked_.wait(lock, [&] { return looks_ > before; });
  }

  std::mutex mutex_;
  std::condition_variable looked_;
  absl::Time now_;
  int looks_ = 0;
};

TEST_F(OpenAiCallTest, AStreamIsNotSilentForLongWhileItsPromptIsRead) {
  const auto exchange = std::make_shared<KeptExchange>();
  start_openai_call(*state_, OpenAiEndpoint::kCompletions, {.body = R"({"prompt": "x", "stream": true})"}, exchange,
                    [this] { return look(); });
  const std::shared_ptr<TokenSink> sink = holding_.wait_for_sink(0);
  at_second(0, [&] { sink->on_start(); });
  at_second(9, [&] { sink->on_progress(0.1); });
  at_second(10, [&] { sink->on_progress(0.379); });
  at_second(19, [&] { sink->on_progress(0.5); });
  at_second(21, [&] { sink->on_progress(0.6); });
  sink->on_error(absl::CancelledError());
  EXPECT_THAT(exchange->wait_for_parts(),
              ElementsAre(": 37 % of the prompt is read\n\n", ": 60 % of the prompt is read\n\n"));
}

}  // namespace
}  // namespace pkv
