// The places of requests that have come and are not running yet: those being prepared and those in the engine's queue.
// Whoever finds no place is refused before anything of the request is parsed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <utility>

namespace pkv {

class WaitingRoom {
 public:
  // `bytes`: of the requests as they came.
  WaitingRoom(size_t places, uint64_t bytes) : max_places_(places), max_bytes_(bytes) {}

  // A place that is taken until it is left or destroyed. The room must outlive it.
  class Place {
   public:
    Place() = default;
    Place(Place&& other) noexcept : room_(std::exchange(other.room_, nullptr)), bytes_(other.bytes_) {}
    Place& operator=(Place&& other) noexcept {
      leave();
      room_ = std::exchange(other.room_, nullptr);
      bytes_ = other.bytes_;
      return *this;
    }
    ~Place() { leave(); }
    void leave() {
      if (WaitingRoom* room = std::exchange(room_, nullptr); room != nullptr) room->leave(bytes_);
    }

   private:
    friend class WaitingRoom;
    Place(WaitingRoom* room, uint64_t bytes) : room_(room), bytes_(bytes) {}
    WaitingRoom* room_ = nullptr;
    uint64_t bytes_ = 0;
  };

  // None: the room is full. A request larger than all its bytes has it for itself. Thread-safe.
  std::optional<Place> enter(uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    if (taken_ >= max_places_ || (taken_ > 0 && bytes_ + bytes > max_bytes_)) return std::nullopt;
    ++taken_;
    bytes_ += bytes;
    return Place(this, bytes);
  }

 private:
  void leave(uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    --taken_;
    bytes_ -= bytes;
  }

  const size_t max_places_;
  const uint64_t max_bytes_;
  std::mutex mutex_;
  size_t taken_ = 0;
  uint64_t bytes_ = 0;
};

}  // namespace pkv
