// Commands about the server itself: watching its state, asking for its health and version.
#include <sys/ioctl.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <deque>
#include <iostream>
#include <optional>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/cli/command_support.h"
#include "client/stats_view.h"

namespace pkv::client {
namespace {

constexpr double kRateSeconds = 3;
constexpr char kHideCursor[] = "\x1b[?25l", kShowCursor[] = "\x1b[?25h";

// Can lines be redrawn in place on standard output?
bool can_redraw() {
  const char* terminal = std::getenv("TERM");
  return isatty(STDOUT_FILENO) && terminal != nullptr && *terminal != '\0' && std::string_view(terminal) != "dumb";
}

bool wants_color() {
  const char* no_color = std::getenv("NO_COLOR");
  return no_color == nullptr || *no_color == '\0';
}

void write_now(const char* text, size_t size) { (void)!write(STDOUT_FILENO, text, size); }

// Handlers do only what a signal's handler may. The server notices that the connection is gone.
void end_watch(int signal) { _exit(signal == SIGINT ? kGood : 128 + signal); }
void end_view(int signal) {
  write_now(kShowCursor, sizeof(kShowCursor) - 1);
  end_watch(signal);
}
void suspend_view(int) {
  write_now(kShowCursor, sizeof(kShowCursor) - 1);
  raise(SIGSTOP);
  write_now(kHideCursor, sizeof(kHideCursor) - 1);
}

void on_signal(int signal, void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigaction(signal, &action, nullptr);
}

// Lines at one place of the terminal, drawn anew over themselves. Hides the cursor while it lives.
class LiveView {
 public:
  LiveView() {
    for (const int signal : {SIGINT, SIGTERM}) on_signal(signal, end_view);
    on_signal(SIGTSTP, suspend_view);
    std::cout << kHideCursor;
  }
  ~LiveView() { std::cout << kShowCursor << std::flush; }

  void draw(const v1::Stats* previous, const v1::Stats& now) {
    winsize size = {};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) size = {.ws_row = 24, .ws_col = 80};
    std::vector<std::string> lines = stats_view(previous, now, {.width = size.ws_col, .color = color_});
    if (size.ws_row > 1 && lines.size() >= size.ws_row) lines.resize(size.ws_row - 1);
    std::string text;
    if (rows_ > 0 && size.ws_col != width_) {
      text = "\x1b[2J\x1b[H";  // where the lines are after a change of the width, terminals decide
    } else if (rows_ > 0) {
      text = absl::StrCat("\r\x1b[", rows_, "A");
    }
    for (const std::string& line : lines) absl::StrAppend(&text, "\x1b[2K", line, "\n");
    std::cout << text << "\x1b[J" << std::flush;
    rows_ = lines.size();
    width_ = size.ws_col;
  }

 private:
  const bool color_ = wants_color();
  size_t rows_ = 0;
  int width_ = 0;
};

double uptime_seconds(const v1::Stats& stats) {
  return static_cast<double>(stats.uptime().seconds()) + stats.uptime().nanos() * 1e-9;
}

// Shows every message as it was asked for.
class Watch {
 public:
  explicit Watch(const StatsOptions& options) : options_(options) {
    if (!options.json && can_redraw()) {
      view_.emplace();
    } else {
      for (const int signal : {SIGINT, SIGTERM}) on_signal(signal, end_watch);
    }
  }

  // False where that was the last that is wanted.
  bool show(const v1::WatchStatsResponse& message) {
    const v1::Stats* previous = recent_.empty() ? nullptr : &recent_.front();
    if (view_) {
      view_->draw(previous, message.stats());
    } else {
      std::cout << (options_.json ? to_json(message, false) : stats_line(previous, message.stats())) << std::endl;
    }
    remember(message.stats());
    return std::cout.good() && ++shown_ != options_.count;
  }
  uint64_t shown() const { return shown_; }

 private:
  // A line counts its rates since the one before; the view over some time, so that they can be read.
  void remember(const v1::Stats& stats) {
    const double now = uptime_seconds(stats);
    if (!recent_.empty() && now < uptime_seconds(recent_.back())) recent_.clear();  // another server by now
    recent_.push_back(stats);
    recent_.back().clear_requests();
    const double begin = now - (view_ ? kRateSeconds : 0);
    while (recent_.size() > 1 && uptime_seconds(recent_[1]) <= begin) recent_.pop_front();
  }

  const StatsOptions& options_;
  std::optional<LiveView> view_;
  std::deque<v1::Stats> recent_;
  uint64_t shown_ = 0;
};

// A connection that was closed, by a server that stops or that renews its connections.
bool was_closed(const Error& error) {
  return error.code == grpc::StatusCode::UNAVAILABLE || error.code == grpc::StatusCode::CANCELLED;
}

// The error that ended the watch; none: it has shown what was asked for. Goes on over a new connection where the old
// one was closed.
std::optional<Error> watch_until_end(Client& client, const v1::WatchStatsRequest& request, Watch& watch) {
  while (true) {
    const uint64_t before = watch.shown();
    std::optional<Error> error =
        client.watch_stats(request, [&](const v1::WatchStatsResponse& message) { return watch.show(message); });
    if (error && was_closed(*error) && watch.shown() > before) continue;
    if (error && was_closed(*error) && before > 0) {
      const bool said_why = error->code == grpc::StatusCode::UNAVAILABLE && !error->message.empty();
      error->message = absl::StrCat("the server has gone", said_why ? ": " + error->message : "");
      error->reachable = false;
    }
    return error;
  }
}

const char* health_word(Health health) {
  switch (health) {
    case Health::kServing:
      return "SERVING";
    case Health::kNotServing:
      return "NOT_SERVING";
    case Health::kServiceUnknown:
      return "SERVICE_UNKNOWN";
    case Health::kUnknown:
      break;
  }
  return "UNKNOWN";
}

}  // namespace

int run_watch(Client& client, const StatsOptions& options) {
  absl::Duration interval;
  if (!absl::ParseDuration(options.interval, &interval) && !absl::ParseDuration(options.interval + "s", &interval)) {
    return usage_error(absl::StrCat("--interval: '", options.interval, "' is no time such as 1s, 500ms or 2m"));
  }
  v1::WatchStatsRequest request;
  request.set_include_requests(options.include_requests);
  absl::Duration rest;
  request.mutable_interval()->set_seconds(absl::IDivDuration(interval, absl::Seconds(1), &rest));
  request.mutable_interval()->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
  std::optional<Error> error;
  {
    Watch watch(options);
    error = watch_until_end(client, request, watch);
  }
  return error ? fail(client, *error) : kGood;
}

int run_health(Client& client, const HealthOptions& options) {
  const auto timeout = std::chrono::duration<double>(options.timeout_seconds);
  const auto health =
      client.check_health(options.service, std::chrono::duration_cast<std::chrono::nanoseconds>(timeout));
  if (!health) return fail(client, health.error);
  std::cout << health_word(*health) << "\n";
  return *health == Health::kServing ? kGood : kRpcError;
}

int run_version(Client& client) {
  std::cout << program_version() << std::endl;
  const auto result = client.get_stats(false);
  std::cout << "server " << client.target() << ": "
            << (result ? printable(result->stats().version()) : result.error.describe()) << "\n";
  return kGood;
}

std::string program_version() { return absl::StrCat("pyramidkv ", PKV_VERSION); }

}  // namespace pkv::client
