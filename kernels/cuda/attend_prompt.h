// Attention of prompts by the format of their lanes' entries.
#pragma once

#include "kernels/cuda/stream.h"
#include "kernels/operation_args.h"

namespace pkv::gpu {

// The rows whose lanes have f16 entries, where pages hold whole runs of eight slots. False: of no shape that it takes.
bool attend_prompt(Stream& stream, const AttendArgs& args);
// attend_exact() of the other rows.
void attend_prompt_exact_but_f16(Stream& stream, const AttendArgs& args);

}  // namespace pkv::gpu
