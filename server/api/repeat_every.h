// Work that nobody asks for, on a thread of its own.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <stop_token>

#include "absl/functional/function_ref.h"

namespace pkv {

// Until a stop is requested. What finds no memory is done the next time.
inline void repeat_every(std::chrono::nanoseconds interval, const std::stop_token& stop,
                         absl::FunctionRef<void()> work) {
  std::mutex mutex;
  std::condition_variable_any wake;
  std::unique_lock lock(mutex);
  while (!wake.wait_for(lock, stop, interval, [&stop] { return stop.stop_requested(); })) {
    try {
      work();
    } catch (const std::bad_alloc&) {
    }
  }
}

}  // namespace pkv
