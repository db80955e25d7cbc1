// The memory of a simulated device: no address of it can be read or written by the host but while a queued operation
// runs. Blocks lie apart, full of NaN at first, with a gap before and after each that nobody may touch.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <string>
#include <unordered_map>

namespace pkv::sim {

class DeviceYard {
 public:
  DeviceYard();
  ~DeviceYard();
  DeviceYard(const DeviceYard&) = delete;
  DeviceYard& operator=(const DeviceYard&) = delete;

  // Addresses change hands at once, as their users come in order; what is in them changes with the order, by
  // begin_block() and end_block(). The lowest that fit, so that the yard stays small: its fence costs the host by the
  // page. nullptr where there is no more. Any thread.
  std::byte* take(size_t bytes);
  void give_back(std::byte* at);
  size_t taken() const;       // bytes
  size_t most_taken() const;  // at any time so far

  // Only between open() and close().
  void begin_block(std::byte* at, size_t bytes);
  // Empty, or what was found around the block.
  std::string end_block(std::byte* at);
  std::string check_gaps() const;  // of all blocks

  void open();
  // `drained`: nothing is queued any more that uses what was given back.
  void close(bool drained);

 private:
  struct Block {
    size_t bytes = 0, size = 0;
  };
  std::byte* find_room(size_t size);

  mutable std::mutex mutex_;
  std::byte* base_ = nullptr;
  size_t used_ = 0;   // of the yard: where the last block that is given ends
  size_t reach_ = 0;  // where the last block ends that queued operations may know
  size_t taken_ = 0, most_taken_ = 0;
  std::unordered_map<std::byte*, Block> given_;  // to the host
  std::map<std::byte*, size_t> free_;            // below used_, no two of them neighbours: their bytes
  std::map<std::byte*, size_t> blocks_;          // that are there for operations: bytes
};

}  // namespace pkv::sim
