// Says on standard error what a call that takes more than a second is doing: a line drawn in place on a terminal, a
// line every few seconds elsewhere.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

namespace pkv::client {

class Progress {
 public:
  // Nothing is ever shown unless `shown`.
  Progress(bool shown, std::string what);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // What is going on now: "reading the prompt: 40 %".
  void set(std::string what);
  // Takes the line away; nothing is shown any more.
  void end();

 private:
  void run();
  void draw(std::chrono::steady_clock::duration elapsed);

  const bool terminal_;
  const std::chrono::steady_clock::time_point begun_ = std::chrono::steady_clock::now();
  std::mutex mutex_;
  std::condition_variable ended_changed_;
  std::string what_;
  bool ended_;
  bool drawn_ = false;
  size_t frame_ = 0;
  std::thread thread_;
};

}  // namespace pkv::client
