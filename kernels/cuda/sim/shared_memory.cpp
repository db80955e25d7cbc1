#include "kernels/cuda/sim/shared_memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "kernels/check.h"
#include "kernels/cuda/sim/redzone.h"

namespace pkv::sim {

SharedMemory::SharedMemory(size_t limit) : limit_(limit), capacity_(2 * limit + (size_t{64} << 10)) {
  memory_ = static_cast<std::byte*>(std::aligned_alloc(128, (capacity_ + 127) / 128 * 128));
  PKV_CHECK(memory_ != nullptr, "no memory for a block's shared memory");
}

SharedMemory::~SharedMemory() {
  open_redzone(memory_, capacity_);
  std::free(memory_);
}

void SharedMemory::clear(size_t dynamic_bytes) {
  open_redzone(memory_, end_);
  end_ = used_ = 0;
  arrays_.clear();
  place(nullptr, dynamic_bytes);
  dynamic_ = used_;
}

std::byte* SharedMemory::array(const void* key, size_t bytes) {
  for (const Array& array : arrays_) {
    if (array.key == key) return memory_ + array.offset;
  }
  return place(key, bytes);
}

std::byte* SharedMemory::place(const void* key, size_t bytes) {
  const size_t size = (bytes + kUnit - 1) / kUnit * kUnit;
  if (size > limit_ - used_ || (key != nullptr && used_ - dynamic_ + size > kMostDeclared)) return nullptr;
  PKV_CHECK(end_ + size + kGap <= capacity_, "gaps of shared memory");
  std::byte* at = memory_ + end_;
  std::memset(at, kRedzone, bytes);
  close_redzone(at + bytes, size - bytes + kGap);
  arrays_.push_back({key, end_, bytes});
  used_ += size;
  end_ += size + kGap;
  return at;
}

bool SharedMemory::sound() const {
  for (size_t i = 0; i < arrays_.size(); ++i) {
    const size_t end = arrays_[i].offset + arrays_[i].bytes;
    const size_t next = i + 1 < arrays_.size() ? arrays_[i + 1].offset : end_;
    if (!redzone_sound(memory_ + end, next - end)) return false;
  }
  return true;
}

}  // namespace pkv::sim
