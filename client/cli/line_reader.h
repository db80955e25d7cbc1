// Lines that people type: with editing and a history on a terminal, plainly elsewhere.
#pragma once

#include <memory>
#include <string>

namespace pkv::client {

class LineReader {
 public:
  enum class Outcome : uint8_t { kLine, kEnd, kInterrupted };

  virtual ~LineReader() = default;
  // `line` without its end; lines that end with a backslash are joined. kInterrupted: SIGINT came, what was typed is
  // dropped (needs InterruptGuard::let_reads_return).
  virtual Outcome read(std::string& line) = 0;
  virtual bool terminal() const = 0;
};

// Reads standard input. On a terminal the history is kept in `history_file`; empty: nowhere.
std::unique_ptr<LineReader> make_line_reader(const std::string& history_file);

// $PYRAMIDKV_HISTORY (which may be empty: none), else pyramidkv/chat_history in the user's state folder.
std::string default_history_file();

}  // namespace pkv::client
