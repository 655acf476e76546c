// Attention over packed sequences: owns chunks, threads and scratch memory.
#pragma once

#include "kernels.h"

namespace kogata {

void run_attend(const AttendArgs& args, const int32_t* cu_seqlens, int64_t n_sequences);

}  // namespace kogata
