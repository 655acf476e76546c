#include "elementwise.h"

#include <algorithm>

#include "dispatch.h"
#include "pool.h"

namespace kogata {
namespace {

constexpr int64_t kRowsPerChunk = 32;

template <class Args>
void run_rows(void (*kernel)(const Args&, int64_t, int64_t), const Args& args, int64_t n, int64_t chunk) {
  parallel_for((n + chunk - 1) / chunk, [&](int64_t i) { kernel(args, i * chunk, std::min(n, (i + 1) * chunk)); });
}

}  // namespace

void run_layer_norm(const NormArgs& args, int64_t n_rows) { run_rows(kernels().layer_norm, args, n_rows, kRowsPerChunk); }
void run_rms_norm(const NormArgs& args, int64_t n_rows) { run_rows(kernels().rms_norm, args, n_rows, kRowsPerChunk); }
void run_embed(const EmbedArgs& args, int64_t n_rows) { run_rows(kernels().embed, args, n_rows, kRowsPerChunk); }
void run_pool(const PoolArgs& args, int64_t n_sequences) { run_rows(kernels().pool, args, n_sequences, int64_t{1}); }

}  // namespace kogata
