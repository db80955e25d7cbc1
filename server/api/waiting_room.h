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
  // `bytes`: of the requests as they came. `tokens`: of their prompts, once these are known.
  WaitingRoom(size_t places, uint64_t bytes, uint64_t tokens)
      : max_places_(places), max_bytes_(bytes), max_tokens_(tokens) {}
  // From now on; whoever is in it stays. Thread-safe.
  void set_limits(size_t places, uint64_t bytes, uint64_t tokens) {
    const std::lock_guard lock(mutex_);
    max_places_ = places;
    max_bytes_ = bytes;
    max_tokens_ = tokens;
  }

  // A place that is taken until it is left or destroyed. The room must outlive it.
  class Place {
   public:
    Place() = default;
    Place(Place&& other) noexcept
        : room_(std::exchange(other.room_, nullptr)),
          bytes_(other.bytes_),
          tokens_(std::exchange(other.tokens_, 0)),
          owner_(std::move(other.owner_)) {}
    Place& operator=(Place&& other) noexcept {
      leave();
      room_ = std::exchange(other.room_, nullptr);
      bytes_ = other.bytes_;
      tokens_ = std::exchange(other.tokens_, 0);
      owner_ = std::move(other.owner_);
      return *this;
    }
    ~Place() { leave(); }
    void leave() {
      if (WaitingRoom* room = std::exchange(room_, nullptr); room != nullptr) room->leave(*this);
      tokens_ = 0;
    }
    // Once the prompt's tokens are known. False: with them there would be too many, shared as places are; then the
    // place stays as it was. Prompts that alone are too many wait where no other does. A place that was left may take
    // any number.
    bool take_tokens(uint64_t tokens) { return room_ == nullptr || room_->take_tokens(*this, tokens); }

    // For an answer that is held here besides. False: there would be too many bytes, shared as places are; then the
    // place stays as it was. One that alone is too large is held where no other is.
    bool take_bytes(uint64_t bytes) { return room_ == nullptr || room_->take_bytes(*this, bytes); }

   private:
    friend class WaitingRoom;
    Place(WaitingRoom* room, uint64_t bytes, std::string owner)
        : room_(room), bytes_(bytes), owner_(std::move(owner)) {}
    WaitingRoom* room_ = nullptr;
    uint64_t bytes_ = 0;
    uint64_t tokens_ = 0;
    std::string owner_;
  };

  // None: the room is full, and for an owner with a name it is when it has as much of it as is left: so there is a
  // place for whoever has none. A request larger than all its bytes has it for itself. Thread-safe. std::bad_alloc:
  // nothing has changed.
  std::optional<Place> enter(uint64_t bytes, const std::string& owner) {
    const std::lock_guard lock(mutex_);
    if (all_.places >= max_places_ || (all_.places > 0 && all_.bytes + bytes > max_bytes_)) return std::nullopt;
    const auto found = owners_.find(owner);
    if (found != owners_.end() && !owner.empty()) {
      const Share& own = found->second;
      const bool half = own.places >= max_places_ - all_.places || own.bytes + bytes > max_bytes_ - all_.bytes;
      if (half) return std::nullopt;
    }
    std::string name = owner;
    owners_[owner].add(bytes);  // the last that may need memory
    all_.add(bytes);
    return Place(this, bytes, std::move(name));
  }

 private:
  struct Share {
    size_t places = 0;
    uint64_t bytes = 0;
    uint64_t tokens = 0;

    void add(uint64_t more) {
      ++places;
      bytes += more;
    }
    void remove(const Place& place) {
      --places;
      bytes -= place.bytes_;
      tokens -= place.tokens_;
    }
  };

  bool take_tokens(Place& place, uint64_t tokens) {
    const std::lock_guard lock(mutex_);
    Share& own = owners_.find(place.owner_)->second;
    if (all_.tokens > 0 && all_.tokens + tokens > max_tokens_) return false;
    if (!place.owner_.empty() && own.tokens > 0 && own.tokens + tokens > max_tokens_ - all_.tokens) return false;
    all_.tokens += tokens;
    own.tokens += tokens;
    place.tokens_ += tokens;
    return true;
  }

  bool take_bytes(Place& place, uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    Share& own = owners_.find(place.owner_)->second;
    if (all_.places > 1 && all_.bytes + bytes > max_bytes_) return false;
    if (!place.owner_.empty() && own.places > 1 && own.bytes + bytes > max_bytes_ - all_.bytes) return false;
    all_.bytes += bytes;
    own.bytes += bytes;
    place.bytes_ += bytes;
    return true;
  }

  void leave(const Place& place) {
    const std::lock_guard lock(mutex_);
    all_.remove(place);
    const auto own = owners_.find(place.owner_);
    own->second.remove(place);
    if (own->second.places == 0) owners_.erase(own);
  }

  std::mutex mutex_;
  size_t max_places_;
  uint64_t max_bytes_;
  uint64_t max_tokens_;
  Share all_;
  std::map<std::string, Share> owners_;  // who has places
};

}  // namespace pkv
