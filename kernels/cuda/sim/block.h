// A block of threads on the CPU: every thread is a fiber, one runs at a time, and it runs until it has to wait for
// others. In which order they take their turns is the simulation's choice (Options), and a kernel's answer must not
// depend on it.
//
// Found besides wrong answers: threads that meet at different barriers or never, lanes that are missing from what their
// warp does together, writes beyond a shared array (at the end of the block; at once under AddressSanitizer), reads of
// shared memory that nobody wrote (it is full of NaN), more shared memory than the device has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

struct uint3 {
  unsigned x = 0, y = 0, z = 0;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

namespace pkv::sim {

enum class Order : uint8_t { kForward, kBackward, kShuffled };

// Shared memory that one block can have, by the device's architecture.
constexpr size_t kSharedBytesSm80 = 163 << 10;
constexpr size_t kSharedBytesSm90 = 227 << 10;

struct Options {
  Order order = Order::kForward;  // of the blocks of a grid, and of the threads of a block between two barriers
  uint32_t seed = 1;              // kShuffled
  size_t shared_bytes = kSharedBytesSm90;
};

struct Grid {
  const char* name = "";  // of the kernel
  int64_t blocks = 0;
  int64_t blocks_y = 1;
  int32_t threads = 0;  // of a block
  size_t dynamic_shared_bytes = 0;
};

// Runs `thread` once for every thread of the grid. Empty where all went well; otherwise what was found first, and
// where.
std::string run_grid(const Options& options, const Grid& grid, const std::function<void()>& thread);

// ---- inside a thread

// A place in a kernel's source.
struct Place {
  const char* file = "";
  int line = 0;

  static constexpr Place here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
  friend bool operator==(const Place& a, const Place& b) { return a.file == b.file && a.line == b.line; }
};

struct BlockPlace {
  uint3 index;   // of the block
  dim3 blocks;   // of the grid
  dim3 threads;  // of a block
};

// What the lanes of a warp brought to an exchange. Valid until the calling thread's next call.
struct WarpValues {
  uint64_t bits[32] = {};
};

// How the threads of a block voted at a barrier, of those that have not ended.
struct BarrierVote {
  int count = 0;  // in favour
  int threads = 0;
};

const uint3& this_thread_index();
const BlockPlace& this_block();
int32_t this_lane();
BarrierVote block_barrier(bool vote, const Place& at);
// Waits until every lane of the mask is here.
const WarpValues& warp_exchange(uint32_t mask, uint64_t bits, const Place& at);
// The block's array of that key, 16-aligned; the same for every thread.
void* shared_array(const void* key, size_t bytes);
void* dynamic_shared();
// A copy to shared memory that goes on while the thread does other things, as late as it may be: until it is waited for
// there is NaN. From nowhere: zeros.
void start_copy(void* shared, const void* from, size_t bytes);
void end_copy_group();
void wait_for_copies(size_t groups);  // until at most so many groups are still on their way
// Ends the simulation where `holds` is false.
void require(bool holds, const char* otherwise, const Place& at);

}  // namespace pkv::sim
