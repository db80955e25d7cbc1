// An array in a device's memory, for what is beneath the Backend interface.
#pragma once

#include <cstring>
#include <vector>

#include "kernels/check.h"
#include "kernels/cuda/stream.h"

namespace pkv::test {

template <typename T>
class DeviceArray {
 public:
  DeviceArray(gpu::Stream& stream, const std::vector<T>& content)
      : stream_(stream), bytes_(content.size() * sizeof(T)), device_(stream.allocate(bytes_)) {
    PKV_CHECK(device_ != nullptr, "no device memory for a test's array");
    void* pinned = stream.allocate_pinned(bytes_);
    std::memcpy(pinned, content.data(), bytes_);
    stream.upload({device_, bytes_}, {pinned, bytes_}, bytes_, 1);
    stream.wait();
    stream.release_pinned(pinned);
  }
  ~DeviceArray() { stream_.release(device_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() const { return static_cast<T*>(device_); }
  std::vector<T> read() const {
    void* pinned = stream_.allocate_pinned(bytes_);
    std::memset(pinned, 0, bytes_);
    stream_.download({pinned, bytes_}, {device_, bytes_}, bytes_, 1);
    stream_.wait();
    std::vector<T> content(bytes_ / sizeof(T));
    std::memcpy(content.data(), pinned, bytes_);
    stream_.release_pinned(pinned);
    return content;
  }

 private:
  gpu::Stream& stream_;
  size_t bytes_;
  void* device_;
};

}  // namespace pkv::test
