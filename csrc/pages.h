// Attention over pages of keys and values: owns blocks, parts, threads and scratch memory.
#pragma once

#include "kernels.h"

namespace kogata {

int64_t page_bytes(PageKind kind, int64_t head_dim);  // of one KV head, a multiple of 64

void run_rotate_and_write(const RotateArgs& args, int64_t n_rows);

// page_table [S, table_width]; row i of sequence s stands at position lengths[s] - rows of s + i.
void run_attend_pages(const PagesArgs& args, const int32_t* page_table, int64_t table_width, const int32_t* cu_rows,
                      const int32_t* lengths, int64_t n_sequences);

void run_merge(const MergeArgs& args, int64_t n_rows);

}  // namespace kogata
