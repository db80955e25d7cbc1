#include "kernels/cuda/sim/device_yard.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "kernels/check.h"
#include "kernels/cuda/sim/redzone.h"

namespace pkv::sim {
namespace {

constexpr size_t kYardBytes = size_t{1} << 36;  // of addresses; memory follows where it is touched
constexpr size_t kUnit = 256;                   // what CUDA aligns its memory to
constexpr size_t kGap = 256;

}  // namespace

DeviceYard::DeviceYard() {
  void* memory = mmap(nullptr, kYardBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  PKV_CHECK(memory != MAP_FAILED, "no address space for a simulated device");
  base_ = static_cast<std::byte*>(memory);
}

DeviceYard::~DeviceYard() {
  open_redzone(base_, reach_);
  munmap(base_, kYardBytes);
}

std::byte* DeviceYard::take(size_t bytes) {
  std::lock_guard lock(mutex_);
  const size_t size = kGap + (bytes + kUnit - 1) / kUnit * kUnit + kGap;
  std::byte* room = bytes > kYardBytes ? nullptr : find_room(size);
  if (room == nullptr) return nullptr;
  std::byte* at = room + kGap;
  given_[at] = {bytes, size};
  taken_ += bytes;
  most_taken_ = std::max(most_taken_, taken_);
  return at;
}

std::byte* DeviceYard::find_room(size_t size) {
  for (auto hole = free_.begin(); hole != free_.end(); ++hole) {
    const auto [at, bytes] = *hole;
    if (bytes < size) continue;
    free_.erase(hole);
    if (bytes > size) free_.emplace(at + size, bytes - size);
    return at;
  }
  if (size > kYardBytes - used_) return nullptr;
  std::byte* at = base_ + std::exchange(used_, used_ + size);
  reach_ = std::max(reach_, used_);
  return at;
}

void DeviceYard::give_back(std::byte* at) {
  std::lock_guard lock(mutex_);
  const auto block = given_.find(at);
  PKV_CHECK(block != given_.end(), "device memory is given back that nobody has");
  taken_ -= block->second.bytes;
  auto hole = free_.emplace(at - kGap, block->second.size).first;
  given_.erase(block);
  if (const auto next = std::next(hole); next != free_.end() && hole->first + hole->second == next->first) {
    hole->second += next->second;
    free_.erase(next);
  }
  if (hole != free_.begin()) {
    const auto before = std::prev(hole);
    if (before->first + before->second == hole->first) {
      before->second += hole->second;
      free_.erase(hole);
      hole = before;
    }
  }
  if (hole->first + hole->second != base_ + used_) return;
  used_ = static_cast<size_t>(hole->first - base_);
  free_.erase(hole);
}

size_t DeviceYard::taken() const {
  std::lock_guard lock(mutex_);
  return taken_;
}

size_t DeviceYard::most_taken() const {
  std::lock_guard lock(mutex_);
  return most_taken_;
}

void DeviceYard::begin_block(std::byte* at, size_t bytes) {
  const size_t end = (bytes + kUnit - 1) / kUnit * kUnit;
  open_redzone(at - kGap, kGap + end + kGap);
  std::memset(at, kRedzone, bytes);
  close_redzone(at - kGap, kGap);
  close_redzone(at + bytes, end - bytes + kGap);
  blocks_[at] = bytes;
}

std::string DeviceYard::end_block(std::byte* at) {
  const auto block = blocks_.find(at);
  PKV_CHECK(block != blocks_.end(), "an unknown block of device memory ends");
  const size_t bytes = block->second;
  const size_t end = (bytes + kUnit - 1) / kUnit * kUnit;
  const bool sound = redzone_sound(at - kGap, kGap) && redzone_sound(at + bytes, end - bytes + kGap);
  open_redzone(at, bytes);
  close_redzone(at, bytes);  // whoever still uses it is found
  blocks_.erase(block);
  return sound ? "" : "a write beyond device memory of " + std::to_string(bytes) + " bytes";
}

std::string DeviceYard::check_gaps() const {
  for (const auto& [at, bytes] : blocks_) {
    const size_t end = (bytes + kUnit - 1) / kUnit * kUnit;
    if (!redzone_sound(at - kGap, kGap) || !redzone_sound(at + bytes, end - bytes + kGap)) {
      return "a write beyond device memory of " + std::to_string(bytes) + " bytes";
    }
  }
  return "";
}

void DeviceYard::open() {
  std::lock_guard lock(mutex_);
  PKV_CHECK(reach_ == 0 || mprotect(base_, reach_, PROT_READ | PROT_WRITE) == 0, "the fence does not move");
}

void DeviceYard::close(bool drained) {
  std::lock_guard lock(mutex_);
  PKV_CHECK(reach_ == 0 || mprotect(base_, reach_, PROT_NONE) == 0, "the fence does not move");
  if (!drained) return;
  open_redzone(base_ + used_, reach_ - used_);  // the fence is there alone
  reach_ = used_;
}

}  // namespace pkv::sim
