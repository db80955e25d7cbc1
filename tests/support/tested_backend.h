// The backend that unit tests of cache, model, policies and engine run on: the reference, and in a second run of the
// same program (PKV_TEST_BACKEND=fenced, set by pkv_fenced_run in CMake) the reference behind a fence; in a third
// (PKV_TEST_BACKEND=cuda, pkv_cuda_run) the GPU backend on a simulated device.
#pragma once

#include <memory>

#include "kernels/backend.h"

namespace pkv::test {

std::unique_ptr<Backend> make_tested_backend();

}  // namespace pkv::test
