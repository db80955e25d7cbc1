// The places of requests that have come and are not running yet: those being prepared and those in the engine's queue.
// Whoever finds no place is refused before anything of the request is parsed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
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
    Place(Place&& other) noexcept
        : room_(std::exchange(other.room_, nullptr)), bytes_(other.bytes_), owner_(std::move(other.owner_)) {}
    Place& operator=(Place&& other) noexcept {
      leave();
      room_ = std::exchange(other.room_, nullptr);
      bytes_ = other.bytes_;
      owner_ = std::move(other.owner_);
      return *this;
    }
    ~Place() { leave(); }
    void leave() {
      if (WaitingRoom* room = std::exchange(room_, nullptr); room != nullptr) room->leave(bytes_, owner_);
    }

   private:
    friend class WaitingRoom;
    Place(WaitingRoom* room, uint64_t bytes, std::string owner)
        : room_(room), bytes_(bytes), owner_(std::move(owner)) {}
    WaitingRoom* room_ = nullptr;
    uint64_t bytes_ = 0;
    std::string owner_;
  };

  // None: the room is full, and for an owner with a name it is when it has as much of it as is left: so there is a
  // place for whoever has none. A request larger than all its bytes has it for itself. Thread-safe.
  std::optional<Place> enter(uint64_t bytes, const std::string& owner) {
    const std::lock_guard lock(mutex_);
    if (all_.places >= max_places_ || (all_.places > 0 && all_.bytes + bytes > max_bytes_)) return std::nullopt;
    const auto found = owners_.find(owner);
    if (found != owners_.end() && !owner.empty()) {
      const Share& own = found->second;
      const bool half = own.places >= max_places_ - all_.places || own.bytes + bytes > max_bytes_ - all_.bytes;
      if (half) return std::nullopt;
    }
    all_.add(bytes);
    owners_[owner].add(bytes);
    return Place(this, bytes, owner);
  }

 private:
  struct Share {
    size_t places = 0;
    uint64_t bytes = 0;

    void add(uint64_t more) {
      ++places;
      bytes += more;
    }
    void remove(uint64_t less) {
      --places;
      bytes -= less;
    }
  };

  void leave(uint64_t bytes, const std::string& owner) {
    const std::lock_guard lock(mutex_);
    all_.remove(bytes);
    const auto own = owners_.find(owner);
    own->second.remove(bytes);
    if (own->second.places == 0) owners_.erase(own);
  }

  const size_t max_places_;
  const uint64_t max_bytes_;
  std::mutex mutex_;
  Share all_;
  std::map<std::string, Share> owners_;  // who has places
};

}  // namespace pkv
