// The calls about text that there are and what each is at, for whoever wants to know what the server does: ids, phases
// and bytes, no text.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <list>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"

namespace pkv {

// In the order a call goes through them; one that is refused skips some.
enum class CallPhase : uint8_t {
  kQueued,      // it waits for a thread that prepares it
  kPreparing,   // it is parsed, tokenised and planned
  kEngine,      // the engine has it, waiting or running
  kDelivering,  // its answer or its error is on the way to the caller
};
inline constexpr std::array kCallPhases = {CallPhase::kQueued, CallPhase::kPreparing, CallPhase::kEngine,
                                           CallPhase::kDelivering};
std::string_view name_of(CallPhase phase);

class CallRegistry {
 public:
  struct Row {
    std::string_view method;  // of a literal
    std::string peer;
    std::string request_id;  // empty until it is read, and where there is none
    CallPhase phase = CallPhase::kQueued;
    uint64_t bytes = 0;  // of the message
    absl::Time since;    // in this phase
  };

  // A call's row, which goes with it. The registry must outlive it. Thread-safe.
  class Entry {
   public:
    Entry(CallRegistry& registry, Row row);
    ~Entry();
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;
    void enter(CallPhase phase);
    void set_request_id(const std::string& id);

   private:
    CallRegistry& registry_;
    std::list<Row>::iterator row_;
  };

  // In the order they came. Thread-safe.
  std::vector<Row> rows() const;
  // Calls in a phase. Thread-safe, and it takes no lock.
  uint64_t count(CallPhase phase) const { return counts_[static_cast<size_t>(phase)]; }

 private:
  std::atomic<uint64_t>& counted(CallPhase phase) { return counts_[static_cast<size_t>(phase)]; }

  mutable std::mutex mutex_;  // of the rows; the engine's thread takes it, too
  std::list<Row> rows_;
  std::array<std::atomic<uint64_t>, kCallPhases.size()> counts_ = {};
};

}  // namespace pkv
