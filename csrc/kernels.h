// The whole native API on one page: a table of function pointers per instruction set.
//
// A kernel works on a range (rows, panels, one head) of plain memory on the calling thread; the plain C++ files
// (linear.cpp, attend.cpp, …) own threads and scratch memory, the bind_*.cpp files own checks.
// Row contract: what a kernel writes for a row depends on that row alone, never on the range it came in.
#pragma once

#include <cstdint>

namespace kogata {

// Weight matrices are tiled in panels of 16 output columns for every instruction set: [N/16][K/kk][16][kk] with kk = 1
// (f32), 2 (bf16), 4 (int8), 8 (int4; byte i of a column's four holds code i in its low and i + 4 in its high bits),
// 16 (ternary; byte i holds w + 1 of inputs i, i + 4, i + 8, i + 12, two bits each from the lowest) or 20 (trits; byte i
// holds those of i, i + 4, … i + 16 as digits to the base 3, from the lowest).
inline constexpr int64_t kPanel = 16;

struct NormArgs {
  const float* x;
  const float* residual;  // or null; layer_norm adds it to x first, rms_norm to the result
  const float* gain;
  const float* bias;  // of layer_norm
  float* out;  // may be x
  int64_t width;
  float eps;
};

struct EmbedArgs {
  const int32_t* ids;
  const int32_t* positions;
  const int32_t* types;    // or null: no type embedding
  const float* word;       // [V, width] or null, then the int4 rows below
  const uint8_t* codes;    // blocks of 32 columns: byte j holds column j low and column j + 16 high, offset by 8
  const uint8_t* scales;   // their f16 scales
  int64_t code_stride;     // bytes from one block's codes to the next one's
  int64_t scale_stride;    // bytes from one block's scale to the next one's
  const float* position;   // [P, width]
  const float* type;       // [n_types, width] or null
  const float* gain;
  const float* bias;
  float* out;
  int64_t width;
  float eps;
};

struct PoolArgs {
  const float* hidden;       // [T, width]
  const int32_t* cu_seqlens;  // [S + 1]
  float* out;                // [S, width]
  int64_t width;
  bool first_token;  // else the mean over tokens
  bool normalise;
};

enum class Glu { none, silu, gelu_tanh, relu2 };

// Activations are packed in tiles of `tile_rows` rows: [tile][K/kk][tile_rows][kk], kk as for the weights, at most 4.
// Before that a row goes through the gated unit and the RMS norm, where there are such.
struct PackRowsArgs {
  const float* x;  // [T, K]; with a gated unit [T, 2 K]: the gate, then what it multiplies
  int64_t n_rows, n_in, n_in_padded;
  int64_t tile_rows;  // at most the table's row_tile
  Glu glu;
  const float* gain;  // [K] of the norm, or null: none
  float eps;
  void* packed;
  float* scale;   // int8: x = scale * (q - zero), q in 0..255; ternary: x = scale * q, q in -128..127
  int32_t* zero;  // int8; ternary: [T][G], sum of q over each group
  int64_t group;  // ternary: 0, or inputs to a scale
};

struct LinearArgs {
  int64_t n_rows, n_in_padded, n_out, tile_rows;
  const void* x;  // packed rows
  const float* x_scale;
  const int32_t* x_zero;
  const void* weight;
  const float* scales;       // int8, ternary: [N padded], or per group [N/16][G][16]; int4: per group
  const int32_t* code_sums;  // int8 per row: sum over K of the codes
  const float* sums;         // groups: sum over groups of scale * (sum of the codes)
  int64_t group;             // 0: one scale a row
  const float* bias;         // or null
  const float* residual;     // [T, N] or null
  float* out;                // [T, N]
  bool gelu;
};

struct AttendArgs {
  const float* qkv;  // [T, 3 * n_heads * head_dim]: q, k, v
  float* out;        // [T, n_heads * head_dim]
  float* lse;        // [T, n_heads] or null
  int64_t n_heads, head_dim;
  bool reduced;  // bf16 dot products where the instruction set has them
};

// A page holds the keys and the values of 64 tokens for one KV head; a layer's pages are [P, n_kv_heads, page_bytes], its
// heads side by side. Other layers may lie between them.
//   f32   K [D][64]        V [64][D]
//   bf16  K [D/2][64][2]   V [32][D][2]
//   int8  K [D/4][64][4]   V [16][D][4], then the scales of the 64 keys and of the 64 values
// A cell of 4 bytes holds neighbours along the sum of its product. One layout for every instruction set.
inline constexpr int64_t kPageKeys = 64;

enum class PageKind { f32, bf16, int8 };

struct RotateArgs {
  PageKind kind;
  float* qkv;                // [T, (n_heads + 2 * n_kv_heads) * head_dim]; q is rotated in place
  const int32_t* positions;  // [T]
  const int32_t* row_pages;  // [T]: the page that holds the position
  const float* cos;          // [positions, head_dim / 2]
  const float* sin;
  uint8_t* pages;
  int64_t page_step;   // bytes from a page to the next
  int64_t page_bytes;  // of one KV head
  int64_t n_heads, n_kv_heads, head_dim;
  const float* q_gain;  // [head_dim] of an RMS norm of every head, or null: none
  const float* k_gain;
  float eps;
};

struct PagesArgs {
  PageKind kind;
  const float* qkv;
  const uint8_t* pages;
  int64_t page_step, page_bytes, n_heads, n_kv_heads, head_dim;
  float scale;     // of the scores
  int64_t window;  // keys a row sees, its own included; 0: all
  float* out;      // [T, n_heads * head_dim]
  float* lse;      // [T, n_heads] or null
};

// KV heads x rows of one sequence x the query heads of each, in this order "entries": [n_kv_heads][n_rows][group].
struct QueryBlock {
  const int32_t* page_table;  // of the sequence
  int64_t row, n_rows;        // in qkv
  int64_t position;           // of the first row
  int64_t kv_head, n_kv_heads;
};

struct MergeArgs {
  const float* out_a;  // [T, n_heads * head_dim]
  const float* lse_a;  // [T, n_heads]
  const float* out_b;
  const float* lse_b;
  int64_t n_heads, head_dim;
  float* out;  // may be out_a; lse may be lse_a
  float* lse;
};

struct ScoreArgs {
  const void* query;     // [width]: f32, or int8
  const void* rows;      // [N, width]: f32, f16 or int8
  const int64_t* index;  // the rows to score, or null: all of them
  int64_t width;
  void* out;  // f32; int8: int32 sums
};

// 4-bit codes of 16 rows side by side: [block][group of 8 dimensions][16 rows][4]; a byte holds dimension j in its low
// and dimension j + 4 in its high half.
struct ScanArgs {
  const uint8_t* codes;
  const int8_t* query;  // [8 * n_groups], -127..127
  int64_t n_groups;
};

inline constexpr int64_t kSampleBlock = 128;  // logits that sampling skips together

struct Kernels {
  const char* name;
  int64_t row_tile;
  bool bf16_dot;  // bf16 products round the activations to bf16 too

  // elementwise: rows or sequences [begin, end)
  void (*layer_norm)(const NormArgs&, int64_t begin, int64_t end);
  void (*rms_norm)(const NormArgs&, int64_t begin, int64_t end);
  void (*embed)(const EmbedArgs&, int64_t begin, int64_t end);
  void (*pool)(const PoolArgs&, int64_t begin, int64_t end);

  // linear: row tiles [begin, end) x panels [panel_begin, panel_end)
  // (packing: scratch of `n_in` floats)
  void (*pack_rows_f32)(const PackRowsArgs&, int64_t begin, int64_t end, float* scratch);
  void (*pack_rows_bf16)(const PackRowsArgs&, int64_t begin, int64_t end, float* scratch);
  void (*pack_rows_int8)(const PackRowsArgs&, int64_t begin, int64_t end, float* scratch);
  void (*pack_rows_ternary)(const PackRowsArgs&, int64_t begin, int64_t end, float* scratch);
  void (*linear_f32)(const LinearArgs&, int64_t begin, int64_t end, int64_t panel_begin, int64_t panel_end);
  void (*linear_bf16)(const LinearArgs&, int64_t begin, int64_t end, int64_t panel_begin, int64_t panel_end);
  void (*linear_int8)(const LinearArgs&, int64_t begin, int64_t end, int64_t panel_begin, int64_t panel_end);
  void (*linear_int4)(const LinearArgs&, int64_t begin, int64_t end, int64_t panel_begin, int64_t panel_end);
  void (*linear_ternary)(const LinearArgs&, int64_t begin, int64_t end, int64_t panel_begin, int64_t panel_end);
  void (*linear_trits)(const LinearArgs&, int64_t begin, int64_t end, int64_t panel_begin, int64_t panel_end);

  // attend: queries [begin, end) of the sequence of `length` tokens that starts at token `first`, one head
  void (*attend)(const AttendArgs&, int64_t first, int64_t length, int64_t head, int64_t begin, int64_t end,
                 void* scratch);

  // pages: rows [begin, end); one block's queries in the arithmetic of its kind ([entries][head_dim] floats are enough,
  // and 8 bytes an entry); a block over pages [begin, end) into a part; a part added to those before it; the result.
  // A part of n entries: n * padded head_dim sums of weighted values, n maxima, n sums of weights.
  void (*rotate_and_write)(const RotateArgs&, int64_t begin, int64_t end);
  void (*pack_queries)(const PagesArgs&, const QueryBlock&, void* queries);
  void (*attend_pages)(const PagesArgs&, const QueryBlock&, const void* queries, int64_t begin, int64_t end, float* part);
  void (*fold_part)(int64_t n_entries, int64_t padded_dim, const float* part, float* total);
  void (*finish_part)(const PagesArgs&, const QueryBlock&, const float* total);
  void (*merge)(const MergeArgs&, int64_t begin, int64_t end);

  // score: out[i - begin] for places i in [begin, end); scan: rows of blocks [begin, end) whose sum reaches the threshold
  void (*score_f32)(const ScoreArgs&, int64_t begin, int64_t end);
  void (*score_f16)(const ScoreArgs&, int64_t begin, int64_t end);
  void (*score_int8)(const ScoreArgs&, int64_t begin, int64_t end);
  int64_t (*scan_codes)(const ScanArgs&, int64_t begin, int64_t end, int32_t threshold, int32_t* sums, uint32_t* rows);

  // sample: the largest of every kSampleBlock logits, NaN where one is NaN or infinite; the sum of
  // exp((x - shift) * scale), 0 for e^-87 and less, and each of them where out is not null
  void (*block_max)(const float* x, int64_t n, float* maxima);
  double (*sum_exp)(const float* x, int64_t n, float shift, float scale, float* out);

  // measure: arithmetic operations done (a multiply-add is two), something about an array that is read once
  double (*peak_f32)(int64_t iterations);
  double (*peak_bf16)(int64_t iterations);
  double (*peak_int8)(int64_t iterations);
  float (*read)(const int32_t* x, int64_t n);
};

extern const Kernels kernels_scalar;
#if defined(__x86_64__) || defined(_M_X64)
extern const Kernels kernels_avx2;
extern const Kernels kernels_avxvnni;
extern const Kernels kernels_avx512vnni;
extern const Kernels kernels_avx512bf16;
#elif defined(__aarch64__)
extern const Kernels kernels_neon;
extern const Kernels kernels_neondot;
#endif

}  // namespace kogata
