// An array in a simulated device's memory, for tests beneath the Backend interface.
#pragma once

#include "kernels/cuda/sim/sim_stream.h"
#include "tests/cuda/device_array.h"

namespace pkv::test {

template <typename T>
using SimArray = DeviceArray<T>;

}  // namespace pkv::test
