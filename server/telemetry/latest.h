// The newest of a series of immutable values: one thread sets it, others take it and keep it as long as they like.
#pragma once

#include <memory>
#include <mutex>
#include <utility>

namespace pkv {

// The lock is held for the copy of a pointer, never for that of a value. (std::atomic<std::shared_ptr> takes a lock of
// its own for that, which ThreadSanitizer does not see.)
template <typename T>
class Latest {
 public:
  void set(std::shared_ptr<const T> value) {
    const std::lock_guard lock(mutex_);
    value_.swap(value);  // the old one is given up when the lock is gone: it may be the last that refers to it
  }
  std::shared_ptr<const T> get() const {
    const std::lock_guard lock(mutex_);
    return value_;
  }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const T> value_;
};

}  // namespace pkv
