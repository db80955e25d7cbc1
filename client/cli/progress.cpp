#include "client/cli/progress.h"

#include <unistd.h>

#include <iostream>

#include "absl/strings/str_format.h"

namespace pkv::client {
namespace {

using namespace std::chrono_literals;

constexpr auto kPatience = 1s;
constexpr auto kFrame = 100ms;  // on a terminal
constexpr auto kLine = 5s;      // elsewhere

}  // namespace

Progress::Progress(bool shown, std::string what)
    : terminal_(isatty(STDERR_FILENO) == 1), what_(std::move(what)), ended_(!shown) {
  if (shown) thread_ = std::thread([this] { run(); });
}

Progress::~Progress() {
  end();
  if (thread_.joinable()) thread_.join();
}

void Progress::set(std::string what) {
  const std::lock_guard lock(mutex_);
  what_ = std::move(what);
}

void Progress::end() {
  const std::lock_guard lock(mutex_);
  if (drawn_) std::cerr << "\r\x1b[2K" << std::flush;
  drawn_ = false;
  ended_ = true;
  ended_changed_.notify_all();
}

void Progress::run() {
  std::unique_lock lock(mutex_);
  auto next = begun_ + kPatience;
  while (!ended_changed_.wait_until(lock, next, [this] { return ended_; })) {
    draw(std::chrono::steady_clock::now() - begun_);
    next += terminal_ ? std::chrono::steady_clock::duration(kFrame) : kLine;
  }
}

void Progress::draw(std::chrono::steady_clock::duration elapsed) {
  const int seconds = static_cast<int>(std::chrono::duration_cast<std::chrono::seconds>(elapsed).count());
  if (terminal_) {
    constexpr char kFrames[] = {'|', '/', '-', '\\'};
    std::cerr << absl::StrFormat("\r\x1b[2K%c %s (%d s)", kFrames[frame_++ % sizeof(kFrames)], what_, seconds)
              << std::flush;
    drawn_ = true;
  } else {
    std::cerr << absl::StrFormat("%s (%d s)\n", what_, seconds) << std::flush;
  }
}

}  // namespace pkv::client
