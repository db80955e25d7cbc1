// The calls that are being prepared or wait for a thread that prepares them, for whoever wants to know what the server
// is at: ids, phases and bytes, no text.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/time/time.h"

namespace pkv {

class PreparationList {
 public:
  struct Row {
    std::string_view method;  // of a literal
    std::string peer;
    std::string request_id;  // empty until it is read, and where there is none
    std::string_view phase;  // queued, preparing
    uint64_t bytes = 0;      // of the message
    absl::Time since;        // in this phase
  };

  // A call's row, which goes with it. The list must outlive it. Thread-safe.
  class Entry {
   public:
    Entry(PreparationList& list, Row row);
    ~Entry();
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;
    // A thread has begun with it.
    void begin();
    void set_request_id(const std::string& id);

   private:
    PreparationList& list_;
    std::list<Row>::iterator row_;
  };

  // In the order they came. Thread-safe.
  std::vector<Row> rows() const;

 private:
  mutable std::mutex mutex_;
  std::list<Row> rows_;
};

}  // namespace pkv
