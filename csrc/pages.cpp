#include "pages.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "dispatch.h"
#include "pool.h"
#include "scratch.h"

namespace kogata {
namespace {

constexpr int64_t kRowsPerChunk = 16;    // of rotate_and_write and merge
constexpr int64_t kEntriesPerBlock = 96;  // a page is read once for so many rows x heads
constexpr int64_t kPagesPerPart = 16;
constexpr std::size_t kMostPartBytes = std::size_t{64} << 20;

int64_t ceil_div(int64_t n, int64_t by) { return (n + by - 1) / by; }

// A block of queries and the pages it sees. Where one block is much of the whole work, its parts are units of their own
// for the threads and whoever ends the last of them adds them up; else one thread makes and adds part after part. Both
// do the same arithmetic in the same order.
struct Work {
  QueryBlock block;
  int64_t page_begin, page_end;
  int64_t n_parts;
  float* parts = nullptr;  // of a block that is split
  std::unique_ptr<std::atomic<int64_t>> left;
};

struct Unit {
  int64_t work, part;  // part -1: all of them
};

}  // namespace

int64_t page_bytes(PageKind kind, int64_t head_dim) {
  const int64_t element = kind == PageKind::f32 ? 4 : kind == PageKind::bf16 ? 2 : 1;
  const int64_t cells = 2 * kPageKeys * head_dim * element;
  if (kind == PageKind::int8) return cells + 2 * kPageKeys * static_cast<int64_t>(sizeof(float));
  return cells + (head_dim % kPanel != 0 ? 64 : 0);  // the last row of values is read in whole panels
}

void run_rotate_and_write(const RotateArgs& args, int64_t n_rows) {
  const Kernels& table = kernels();
  parallel_for(ceil_div(n_rows, kRowsPerChunk), [&](int64_t i) {
    table.rotate_and_write(args, i * kRowsPerChunk, std::min(n_rows, (i + 1) * kRowsPerChunk));
  });
}

void run_merge(const MergeArgs& args, int64_t n_rows) {
  const Kernels& table = kernels();
  parallel_for(ceil_div(n_rows, kRowsPerChunk), [&](int64_t i) {
    table.merge(args, i * kRowsPerChunk, std::min(n_rows, (i + 1) * kRowsPerChunk));
  });
}

void run_attend_pages(const PagesArgs& args, const int32_t* page_table, int64_t table_width, const int32_t* cu_rows,
                      const int32_t* lengths, int64_t n_sequences) {
  const Kernels& table = kernels();
  const int64_t group = args.n_heads / args.n_kv_heads, rows_per_block = std::max<int64_t>(1, kEntriesPerBlock / group);
  const int64_t width = ceil_div(args.head_dim, kPanel) * kPanel, wanted = 4 * threads();

  // The KV heads of a page are read in one sweep where a block's rows are few, in more where that feeds more threads.
  int64_t all_parts = 0;
  for (int64_t s = 0; s < n_sequences; ++s) {
    const int64_t n_rows = cu_rows[s + 1] - cu_rows[s], keys = args.window == 0 ? lengths[s] : args.window + n_rows;
    if (n_rows > 0) all_parts += ceil_div(n_rows, rows_per_block) * ceil_div(keys, kPagesPerPart * kPageKeys);
  }
  const int64_t sweeps = std::min(args.n_kv_heads, ceil_div(wanted, std::max<int64_t>(1, all_parts)));

  std::vector<Work> works;
  int64_t all_pages = 0;
  for (int64_t s = 0; s < n_sequences; ++s) {
    const int64_t n_rows = cu_rows[s + 1] - cu_rows[s], first = lengths[s] - n_rows;
    for (int64_t row = 0; row < n_rows; row += rows_per_block) {
      const int64_t rows = std::min(rows_per_block, n_rows - row), position = first + row;
      const int64_t page_begin = args.window == 0 ? 0 : std::max<int64_t>(0, position - args.window + 1) / kPageKeys;
      const int64_t page_end = (position + rows - 1) / kPageKeys + 1;
      const int64_t n_parts = (page_end - 1) / kPagesPerPart - page_begin / kPagesPerPart + 1;
      const int64_t most = std::max<int64_t>(1, kEntriesPerBlock / (rows * group));
      const int64_t n_blocks = std::max(sweeps, ceil_div(args.n_kv_heads, most));
      for (int64_t block = 0; block < n_blocks; ++block) {
        const int64_t head = args.n_kv_heads * block / n_blocks;
        const int64_t n_heads = args.n_kv_heads * (block + 1) / n_blocks - head;
        works.push_back({{page_table + s * table_width, cu_rows[s] + row, rows, position, head, n_heads},
                         page_begin, page_end, n_parts, nullptr, nullptr});
        all_pages += n_heads * (page_end - page_begin) * rows;
      }
    }
  }

  auto entries = [&](const Work& work) { return work.block.n_kv_heads * work.block.n_rows * group; };
  auto part_floats = [&](const Work& work) { return entries(work) * (width + 2); };
  std::vector<Unit> units;
  std::size_t split_floats = 0;
  for (std::size_t w = 0; w < works.size(); ++w) {
    Work& work = works[w];
    const auto floats = static_cast<std::size_t>(work.n_parts * part_floats(work));
    const int64_t pages = (work.page_end - work.page_begin) * work.block.n_kv_heads * work.block.n_rows;
    const bool split = work.n_parts > 1 && pages > all_pages / wanted &&
                       (split_floats + floats) * sizeof(float) <= kMostPartBytes;
    if (split) {
      split_floats += floats;
      work.left = std::make_unique<std::atomic<int64_t>>(work.n_parts);
    }
    for (int64_t part = 0; part < (split ? work.n_parts : 1); ++part) {
      units.push_back({static_cast<int64_t>(w), split ? part : -1});
    }
  }
  thread_local Scratch part_memory;
  auto* next = static_cast<float*>(part_memory.get(split_floats * sizeof(float) + 64));
  for (Work& work : works) {
    if (work.left == nullptr) continue;
    work.parts = next;
    next += work.n_parts * part_floats(work);
  }

  parallel_for(static_cast<int64_t>(units.size()), [&](int64_t i) {
    thread_local Scratch query_memory, total_memory;
    const Unit unit = units[units.size() - 1 - static_cast<std::size_t>(i)];  // later rows see more: the longest first
    Work& work = works[static_cast<std::size_t>(unit.work)];
    const int64_t n = entries(work), floats = part_floats(work);
    void* queries = query_memory.get(static_cast<std::size_t>(n * (4 * args.head_dim + 8) + 64));
    table.pack_queries(args, work.block, queries);
    auto attend = [&](int64_t part, float* to) {
      const int64_t first = (work.page_begin / kPagesPerPart + part) * kPagesPerPart;
      table.attend_pages(args, work.block, queries, std::max(first, work.page_begin),
                         std::min(first + kPagesPerPart, work.page_end), to);
    };
    float* total = work.parts;
    if (unit.part < 0) {
      total = static_cast<float*>(total_memory.get(static_cast<std::size_t>(2 * floats) * sizeof(float) + 64));
      attend(0, total);
      for (int64_t part = 1; part < work.n_parts; ++part) {
        attend(part, total + floats);
        table.fold_part(n, width, total + floats, total);
      }
    } else {
      attend(unit.part, work.parts + unit.part * floats);
      if (work.left->fetch_sub(1, std::memory_order_acq_rel) != 1) return;
      for (int64_t part = 1; part < work.n_parts; ++part) table.fold_part(n, width, total + part * floats, total);
    }
    table.finish_part(args, work.block, total);
  });
}

}  // namespace kogata
