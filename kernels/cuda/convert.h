// Gathering to lanes of another format.
#pragma once

#include <cstdint>

#include "kernels/cuda/stream.h"
#include "kernels/kv_view.h"

namespace pkv::gpu {

// gather() (kernels/backend.h) of the lanes whose formats differ.
void convert_entries(Stream& stream, const KvView& kv, int32_t from, const TensorView& kept, const TensorView& counts,
                     int32_t to);

}  // namespace pkv::gpu
