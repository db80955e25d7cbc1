#include "kernels/cuda/sim/block.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "kernels/cuda/sim/fiber.h"
#include "kernels/cuda/sim/shared_memory.h"

namespace pkv::sim {
namespace {

constexpr int32_t kWarp = 32;
constexpr int32_t kMostThreads = 1024;
constexpr int64_t kMostBlocks = (int64_t{1} << 31) - 1, kMostBlocksY = 65535;

enum class State : uint8_t { kReady, kAtBarrier, kAtExchange, kEnded };

// Lanes of a warp that do something together: of all masks, and of one mask one after the other.
struct Exchange {
  uint32_t mask = 0;
  uint32_t arrived = 0;
  uint32_t leaving = 0;  // lanes that have not read the values yet; 0 of one that is not complete or over
  Place at;
  WarpValues values;
};

struct AsyncCopy {
  void* to;
  const void* from;  // nullptr: zeros
  size_t bytes;
  int64_t group;
};

struct Thread {
  Fiber fiber;
  uint3 index;
  int32_t lane = 0, warp = 0;
  State state = State::kReady;
  Place at;  // where it waits
  Exchange* exchange = nullptr;
  std::vector<AsyncCopy> copies;  // in order; the first `copied` are done
  size_t copied = 0;
  int64_t group = 0;  // of the next
};

// Of this host thread, for one simulation after the other of devices that are alike.
SharedMemory& shared_memory(size_t limit) {
  thread_local std::unique_ptr<SharedMemory> memory;
  if (memory == nullptr || memory->limit() != limit) memory = std::make_unique<SharedMemory>(limit);
  return *memory;
}

class Simulation {
 public:
  Simulation(const Options& options, const Grid& grid, const std::function<void()>& body)
      : options_(options),
        grid_(grid),
        body_(body),
        random_(options.seed),
        shared_(shared_memory(options.shared_bytes)) {}

  std::string run();

  // ---- of the thread that runs
  Thread& thread() { return *thread_; }
  const BlockPlace& block() const { return block_; }
  SharedMemory& shared() { return shared_; }
  void body() { body_(); }
  void end() {
    thread_->state = State::kEnded;
    --live_;
    Fiber::pause();
  }
  BarrierVote barrier(bool vote, const Place& at);
  const WarpValues& exchange(uint32_t mask, uint64_t bits, const Place& at);
  // Does not return: nothing runs any more, destructors neither, so `what` owns nothing.
  void stop(const char* what, const Place& at) {
    report(what, at);
    Fiber::pause();
  }

 private:
  std::string check() const;
  void report(const std::string& what, const Place& at);
  void run_block();
  void release_barrier();
  void find_deadlock();
  Exchange& exchange_of(uint32_t mask);
  template <typename T>
  void arrange(std::vector<T>& order);

  const Options& options_;
  const Grid& grid_;
  const std::function<void()>& body_;
  std::mt19937 random_;
  SharedMemory& shared_;
  BlockPlace block_;
  std::vector<Thread> threads_;
  std::vector<int32_t> order_;
  std::vector<std::vector<std::unique_ptr<Exchange>>> exchanges_;  // [warp]
  Thread* thread_ = nullptr;
  int32_t live_ = 0, waiting_ = 0;  // threads that have not ended; those of them at a barrier
  int votes_ = 0;
  BarrierVote outcome_;
  std::string error_;
};

thread_local Simulation* current = nullptr;
thread_local Stacks stacks;  // of one simulation after the other

template <typename T>
void Simulation::arrange(std::vector<T>& order) {
  std::iota(order.begin(), order.end(), T{0});
  if (options_.order == Order::kBackward) std::reverse(order.begin(), order.end());
  if (options_.order == Order::kShuffled) std::shuffle(order.begin(), order.end(), random_);
}

std::string Simulation::check() const {
  if (grid_.threads < 1 || grid_.threads > kMostThreads) return "threads of a block";
  if (grid_.blocks > kMostBlocks || grid_.blocks_y > kMostBlocksY) return "blocks of a grid";
  if (grid_.dynamic_shared_bytes > options_.shared_bytes) return "more shared memory than a block can have";
  return "";
}

std::string Simulation::run() {
  if (const std::string wrong = check(); !wrong.empty()) return std::string(grid_.name) + ": " + wrong;
  block_.blocks = {static_cast<unsigned>(grid_.blocks), static_cast<unsigned>(grid_.blocks_y), 1};
  block_.threads = {static_cast<unsigned>(grid_.threads), 1, 1};
  stacks.require(static_cast<size_t>(grid_.threads));
  threads_.resize(static_cast<size_t>(grid_.threads));
  order_.resize(threads_.size());
  exchanges_.resize((threads_.size() + kWarp - 1) / kWarp);
  std::vector<int64_t> blocks(static_cast<size_t>(grid_.blocks * grid_.blocks_y));
  arrange(blocks);
  Simulation* before = std::exchange(current, this);
  for (const int64_t block : blocks) {
    block_.index = {static_cast<unsigned>(block % grid_.blocks), static_cast<unsigned>(block / grid_.blocks), 0};
    run_block();
    if (!error_.empty()) break;
  }
  current = before;
  return error_;
}

void Simulation::run_block() {
  shared_.clear(grid_.dynamic_shared_bytes);
  for (auto& of_warp : exchanges_) of_warp.clear();
  live_ = grid_.threads;
  waiting_ = 0;
  votes_ = 0;
  for (int32_t i = 0; i < grid_.threads; ++i) {
    Thread& thread = threads_[static_cast<size_t>(i)];
    thread = {.index = {static_cast<unsigned>(i), 0, 0}, .lane = i % kWarp, .warp = i / kWarp};
    thread.fiber.start(stacks.bottom(static_cast<size_t>(i)), [] {
      current->body();
      current->end();
    });
  }
  arrange(order_);
  while (live_ > 0 && error_.empty()) {
    if (options_.order == Order::kShuffled) std::shuffle(order_.begin(), order_.end(), random_);
    bool any_ran = false;
    for (const int32_t i : order_) {
      Thread& thread = threads_[static_cast<size_t>(i)];
      if (thread.state != State::kReady) continue;
      any_ran = true;
      thread_ = &thread;
      thread.fiber.resume();
      if (!error_.empty()) return;
    }
    if (live_ > 0 && waiting_ == live_) {
      release_barrier();
    } else if (!any_ran) {
      find_deadlock();
    }
  }
  if (error_.empty() && !shared_.sound()) report("a write beyond a shared array, seen at the end of the block", {});
}

void Simulation::release_barrier() {
  const Thread* first = nullptr;
  for (Thread& thread : threads_) {
    if (thread.state != State::kAtBarrier) continue;
    if (first == nullptr) first = &thread;
    if (!(thread.at == first->at)) {
      thread_ = &thread;
      return report("threads of a block meet at different barriers: one of them", thread.at);
    }
    thread.state = State::kReady;
  }
  outcome_ = {.count = votes_, .threads = waiting_};
  waiting_ = votes_ = 0;
}

// Some wait at barriers perhaps, but not all; so there are lanes that wait for others.
void Simulation::find_deadlock() {
  for (Thread& thread : threads_) {
    if (thread.state != State::kAtExchange) continue;
    thread_ = &thread;
    return report("a lane of the mask never comes to what its warp does together", thread.at);
  }
}

BarrierVote Simulation::barrier(bool vote, const Place& at) {
  Thread& self = *thread_;
  self.state = State::kAtBarrier;
  self.at = at;
  ++waiting_;
  votes_ += vote ? 1 : 0;
  Fiber::pause();
  return outcome_;
}

Exchange& Simulation::exchange_of(uint32_t mask) {
  auto& of_warp = exchanges_[static_cast<size_t>(thread_->warp)];
  for (const auto& exchange : of_warp) {
    if (exchange->leaving == 0 && exchange->arrived != 0 && exchange->mask == mask) return *exchange;
  }
  for (const auto& exchange : of_warp) {
    if (exchange->leaving == 0 && exchange->arrived == 0) return *exchange;
  }
  return *of_warp.emplace_back(std::make_unique<Exchange>());
}

const WarpValues& Simulation::exchange(uint32_t mask, uint64_t bits, const Place& at) {
  Thread& self = *thread_;
  const uint32_t bit = 1u << self.lane;
  if ((mask & bit) == 0) stop("a lane is not in the mask it names", at);
  Exchange& group = exchange_of(mask);
  if (group.arrived == 0) {
    group.mask = mask;
    group.at = at;
  }
  if (!(group.at == at)) stop("lanes of a warp meet in different operations: one of them", at);
  group.values.bits[self.lane] = bits;
  group.arrived |= bit;
  if (group.arrived == mask) {
    group.leaving = mask;
    const size_t first = static_cast<size_t>(self.warp) * kWarp;
    for (size_t i = first; i < std::min(first + kWarp, threads_.size()); ++i) {
      if (threads_[i].exchange == &group) threads_[i].state = State::kReady;
    }
  } else {
    self.state = State::kAtExchange;
    self.at = at;
    self.exchange = &group;
    Fiber::pause();
    self.exchange = nullptr;
  }
  group.leaving &= ~bit;
  if (group.leaving == 0) group.arrived = 0;
  return group.values;
}

void Simulation::report(const std::string& what, const Place& at) {
  const auto number = [](int64_t value) { return std::to_string(value); };
  error_ = std::string(grid_.name) + ": " + what;
  if (at.line != 0) error_ += " at " + std::string(at.file) + ":" + number(at.line);
  error_ += ", block (" + number(block_.index.x) + ", " + number(block_.index.y) + ")";
  if (at.line != 0) error_ += ", thread " + number(thread_->index.x);
}

}  // namespace

std::string run_grid(const Options& options, const Grid& grid, const std::function<void()>& thread) {
  return Simulation(options, grid, thread).run();
}

const uint3& this_thread_index() { return current->thread().index; }
const BlockPlace& this_block() { return current->block(); }
int32_t this_lane() { return current->thread().lane; }
BarrierVote block_barrier(bool vote, const Place& at) { return current->barrier(vote, at); }
const WarpValues& warp_exchange(uint32_t mask, uint64_t bits, const Place& at) {
  return current->exchange(mask, bits, at);
}

void* shared_array(const void* key, size_t bytes) {
  std::byte* at = current->shared().array(key, bytes);
  if (at == nullptr)
    current->stop("more shared memory than a block can have, or declares at most (48 KiB)", Place::here());
  return at;
}

void* dynamic_shared() { return current->shared().dynamic(); }

void start_copy(void* shared, const void* from, size_t bytes) {
  std::memset(shared, 0xff, bytes);
  current->thread().copies.push_back({shared, from, bytes, current->thread().group});
}

void end_copy_group() { ++current->thread().group; }

void wait_for_copies(size_t groups) {
  Thread& self = current->thread();
  while (self.copied < self.copies.size() &&
         self.copies[self.copied].group < self.group - static_cast<int64_t>(groups)) {
    const AsyncCopy& copy = self.copies[self.copied++];
    if (copy.from == nullptr) {
      std::memset(copy.to, 0, copy.bytes);
    } else {
      std::memcpy(copy.to, copy.from, copy.bytes);
    }
  }
}

void require(bool holds, const char* otherwise, const Place& at) {
  if (!holds) current->stop(otherwise, at);
}

}  // namespace pkv::sim
