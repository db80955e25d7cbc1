// What callers may have of the server before the engine sees them, and after. A reload may set others: calls go on
// with those they began with, and keep their places also where these are more than there are now; max_unread_seconds
// holds at once.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pkv {

struct FrontLimits {
  int preparation_threads = 2;
  size_t max_waiting = 256;                          // requests that are prepared or in the engine's queue
  uint64_t max_waiting_bytes = uint64_t{256} << 20;  // of them, as they came
  uint64_t max_waiting_tokens = uint64_t{1} << 22;   // of their prompts
  uint64_t max_text_bytes = uint64_t{4} << 20;       // of one text or chat to be tokenised
  uint64_t max_reply_bytes = uint64_t{16} << 20;     // of the message with a request's report
  size_t max_unread_bytes = size_t{4} << 20;         // of one streamed answer: tokens its client has not taken
  double max_unread_seconds = 60;                    // that a client may take for a message
  size_t max_watchers = 64;                          // streams of WatchStats
};

}  // namespace pkv
