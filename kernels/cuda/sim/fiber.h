// A flow of control with a stack of its own, which gives way only where it says so.
#pragma once

#include <cstddef>

namespace pkv::sim {

// The stacks of a block's threads, one below the other, a guard page beneath each. They are used by block after block.
class Stacks {
 public:
  Stacks() = default;
  ~Stacks();
  Stacks(const Stacks&) = delete;
  Stacks& operator=(const Stacks&) = delete;

  static constexpr size_t kBytes = 64 << 10;  // of one
  void require(size_t count);
  std::byte* bottom(size_t index) const { return memory_ + index * (kBytes + kGuard) + kGuard; }

 private:
  static constexpr size_t kGuard = 4096;

  std::byte* memory_ = nullptr;
  size_t count_ = 0;
};

class Fiber {
 public:
  // From now on resume() begins `body`, which must not return but end with pause(): a fiber that is not resumed any
  // more is done, and its stack may be used by another.
  void start(std::byte* stack_bottom, void (*body)());
  void resume();        // until it pauses
  static void pause();  // the fiber that runs, back to whoever resumed it

 private:
  void* stack_pointer_ = nullptr;
  std::byte* stack_bottom_ = nullptr;
  void* sanitizer_state_ = nullptr;
};

}  // namespace pkv::sim
