// A load that runs in a thread of its own: how others end it, and what they may know of it.
#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>

namespace pkv {

struct Loading {
  std::stop_token stop;  // once requested, the load ends before its next tensor
  // Called in the loading thread after every tensor: bytes of the file's tensors that are done, and all of them. May be
  // empty.
  std::function<void(uint64_t done, uint64_t all)> progress;
};

}  // namespace pkv
