// Row-wise kernels over threads.
#pragma once

#include "kernels.h"

namespace kogata {

void run_layer_norm(const NormArgs& args, int64_t n_rows);
void run_rms_norm(const NormArgs& args, int64_t n_rows);
void run_embed(const EmbedArgs& args, int64_t n_rows);
void run_pool(const PoolArgs& args, int64_t n_sequences);

}  // namespace kogata
