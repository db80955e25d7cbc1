#include "server/life.h"

#include <unistd.h>

#include <chrono>
#include <csignal>
#include <ctime>
#include <future>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace pkv {
namespace {

// How often it is asked whether the model is loaded or the engine has failed.
constexpr long kCheckNanoseconds = 100'000'000;
// What a load that is given up may take to notice it.
constexpr std::chrono::seconds kAbandonTime(1);
// What the last line of the log may take.
constexpr unsigned kLastWordsSeconds = 1;

enum class End { kAsked, kLoadFailed, kEngineFailed };

// From its making on the next SIGTERM or SIGINT ends the process at once. While this lives, the log says so. `ending`:
// what the server is ending for already.
class EndAtNextSignal {
 public:
  EndAtNextSignal(const App& app, const Log& log, End ending)
      : last_words_(std::make_shared<LastWords>(&app, &log, ending)) {
    std::thread([last_words = last_words_] {
      const sigset_t signals = set_of({SIGTERM, SIGINT});
      int signal = 0;
      sigwait(&signals, &signal);
      alarm(kLastWordsSeconds);  // ends the process where writing to the log blocks
      last_words->say(signal);
      _exit(kFailure);
    }).detach();
  }
  ~EndAtNextSignal() { last_words_->forget(); }
  EndAtNextSignal(const EndAtNextSignal&) = delete;
  EndAtNextSignal& operator=(const EndAtNextSignal&) = delete;

 private:
  class LastWords {
   public:
    LastWords(const App* app, const Log* log, End ending) : app_(app), log_(log), ending_(ending) {}
    void say(int signal) {
      const std::lock_guard lock(mutex_);
      if (app_ == nullptr) return;
      const uint32_t requests = app_->open_requests();
      log_->warn(absl::StrCat(ending_ == End::kAsked ? "second " : "", signal == SIGINT ? "SIGINT" : "SIGTERM",
                              ": ending at once, ", requests, requests == 1 ? " request" : " requests", " cut off"));
    }
    void forget() {
      const std::lock_guard lock(mutex_);
      app_ = nullptr;
    }

   private:
    std::mutex mutex_;
    const App* app_;  // null: it is being taken down
    const Log* log_;
    const End ending_;
  };
  std::shared_ptr<LastWords> last_words_;  // the thread's too, which nothing ends
};

// The server's life after its start: the model loads on a thread of its own, this one takes the signals.
class Life {
 public:
  Life(App& app, const Config& config, const ConfigSources& sources, const Log& log)
      : app_(app),
        sources_(sources),
        drain_seconds_(config.server.drain_seconds),
        log_(log),
        loading_(std::async(std::launch::async, [&app] { return app.load(); })) {}

  // Until the end: the exit code.
  int run() {
    const End end = wait_for_end();
    if (end == End::kLoadFailed) {
      log_.error(std::string(load_status_.message()));
      _exit(kFailure);  // as in abandon_load()
    }
    const EndAtNextSignal impatient(app_, log_, end);
    if (!loaded()) abandon_load();
    const bool failed = end == End::kEngineFailed;
    log_.info(failed ? "the engine failed, ending" : "draining", {{"drain_seconds", drain_seconds_}});
    stop(failed ? absl::Now() : absl::Now() + absl::Seconds(drain_seconds_));
    const absl::Status failure = app_.engine_failure();  // while draining, too
    if (!failure.ok()) log_.error(std::string(failure.message()));
    return end == End::kAsked && failure.ok() ? 0 : kFailure;
  }

 private:
  bool loaded() {
    if (loading_.valid() && loading_.wait_for(std::chrono::seconds(0)) == std::future_status::ready) {
      load_status_ = loading_.get();
    }
    return !loading_.valid();
  }

  End wait_for_end() {
    const sigset_t signals = set_of({SIGTERM, SIGINT, SIGHUP});
    const timespec interval{.tv_sec = 0, .tv_nsec = kCheckNanoseconds};
    while (true) {
      const int signal = sigtimedwait(&signals, nullptr, &interval);
      if (signal == SIGTERM || signal == SIGINT) return End::kAsked;
      reload_due_ = reload_due_ || signal == SIGHUP;
      if (loaded() && !load_status_.ok()) return End::kLoadFailed;
      try {
        app_.watch_for_stalls();
        if (reload_due_) reload();
      } catch (const std::bad_alloc&) {  // the next time
      }
      if (!app_.engine_failure().ok()) return End::kEngineFailed;
    }
  }

  // std::bad_alloc: a part may be in force, and the rest comes when it is done again.
  void reload() {
    const absl::StatusOr<Config> config = load_config(sources_);
    const absl::Status status = config.ok() ? app_.reload(*config) : config.status();
    if (status.ok()) {
      drain_seconds_ = config->server.drain_seconds;
      log_.info("SIGHUP: the configuration is in force", {{"presets", config->policies.presets.size()},
                                                          {"api_keys", config->server.api_keys},
                                                          {"log_level", config->log.level}});
    } else {
      log_.error(absl::StrCat("SIGHUP: nothing is changed: ", std::string(status.message())));
    }
    reload_due_ = false;
  }

  // Ends the process, unless the load turns out to be done. One that notices in time gives back what it holds, of a
  // device above all. The rest is not taken down: that can take seconds, and nobody has been served yet.
  void abandon_load() {
    app_.abandon_load();
    loading_.wait_for(kAbandonTime);
    if (loaded() && load_status_.ok()) return;
    log_.info("stopped while loading");
    _exit(0);
  }

  void stop(absl::Time deadline) {
    if (const absl::Status status = app_.stop(deadline); !status.ok()) {
      log_.error(std::string(status.message()));
      _exit(kFailure);
    }
    log_.info("stopped");
  }

  App& app_;
  const ConfigSources& sources_;
  double drain_seconds_;
  bool reload_due_ = false;
  const Log& log_;
  std::future<absl::Status> loading_;
  absl::Status load_status_;  // once `loading_` was read
};

}  // namespace

sigset_t set_of(std::initializer_list<int> signals) {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : signals) sigaddset(&set, signal);
  return set;
}

int live(App& app, const Config& config, const ConfigSources& sources, const Log& log) {
  return Life(app, config, sources, log).run();
}

}  // namespace pkv
