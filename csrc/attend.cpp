#include "attend.h"

#include <algorithm>
#include <vector>

#include "dispatch.h"
#include "pool.h"
#include "scratch.h"

namespace kogata {
namespace {

// A long sequence is cut in blocks of queries so that it feeds several threads; each block reads all keys.
constexpr int64_t kQueriesPerBlock = 256;
constexpr int64_t kMostQueries = 32, kMostRowTile = 16;

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

struct Block {
  int64_t first, length, begin, end;
};

}  // namespace

void run_attend(const AttendArgs& args, const int32_t* cu_seqlens, int64_t n_sequences) {
  std::vector<Block> blocks;
  for (int64_t s = 0; s < n_sequences; ++s) {
    const int64_t first = cu_seqlens[s], length = cu_seqlens[s + 1] - first;
    for (int64_t q = 0; q < length; q += kQueriesPerBlock) {
      blocks.push_back({first, length, q, std::min(length, q + kQueriesPerBlock)});
    }
  }
  const Kernels& table = kernels();
  parallel_for(static_cast<int64_t>(blocks.size()) * args.n_heads, [&](int64_t i) {
    thread_local Scratch memory;
    const Block& block = blocks[static_cast<std::size_t>(i / args.n_heads)];
    const int64_t d = round_up(args.head_dim, kPanel), keys = round_up(block.length, kMostRowTile) + kMostRowTile;
    const int64_t floats = d * kMostQueries + 2 * keys * d + keys * kMostQueries + 64;
    table.attend(args, block.first, block.length, i % args.n_heads, block.begin, block.end,
                 memory.get(static_cast<std::size_t>(floats) * sizeof(float)));
  });
}

}  // namespace kogata
