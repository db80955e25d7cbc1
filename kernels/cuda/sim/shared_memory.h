// The shared memory of a block, array by array, with a gap after each that nobody may touch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace pkv::sim {

class SharedMemory {
 public:
  explicit SharedMemory(size_t limit);
  ~SharedMemory();
  size_t limit() const { return limit_; }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  // For a new block: full of NaN, nothing given out but `dynamic_bytes` at dynamic().
  void clear(size_t dynamic_bytes);
  std::byte* dynamic() const { return memory_; }
  // The array of that key; nullptr where the device has no room for it.
  std::byte* array(const void* key, size_t bytes);
  // Whether nobody wrote beyond an array.
  bool sound() const;

 private:
  struct Array {
    const void* key;
    size_t offset, bytes;
  };
  static constexpr size_t kUnit = 16, kGap = 64;
  static constexpr size_t kMostDeclared = 48 << 10;  // by arrays whose size the compiler knows: CUDA's limit

  std::byte* place(const void* key, size_t bytes);

  size_t limit_, capacity_;
  std::byte* memory_ = nullptr;
  size_t end_ = 0;      // of what is given out, gaps included
  size_t used_ = 0;     // of the device's
  size_t dynamic_ = 0;  // of used_
  std::vector<Array> arrays_;
};

}  // namespace pkv::sim
