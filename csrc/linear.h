// Matrix products over packed weights: owns chunks, threads and scratch memory.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace kogata {

enum class WeightKind { f32, bf16, int8, int4, ternary, trits };

struct LinearCall {
  WeightKind kind;
  int64_t n_rows, n_in, n_out, group;
  const float* x;  // [T, K], with a gated unit [T, 2 K]
  Glu glu;
  const float* gain;  // of an RMS norm before the product, or null
  float eps;
  const void* weight;
  const float* scales;
  const int32_t* code_sums;
  const float* sums;
  const float* bias;
  const float* residual;
  float* out;
  bool gelu;
};

void run_linear(const LinearCall& call);

// Rows of a packed matrix, multiplied out and by a factor.
struct TakeCall {
  WeightKind kind;
  int64_t n_in, group;
  const uint8_t* weight;
  const float* scales;
  const int32_t* rows;  // [R]
  int64_t n_rows;
  float factor;
  float* out;  // [R, K]
};

void run_take(const TakeCall& call);

int64_t padded_rows(int64_t n_out);                                  // to whole panels
int64_t padded_depth(WeightKind kind, int64_t n_in, int64_t group);  // to whole steps, or groups
int64_t packed_bytes(WeightKind kind, int64_t n_out, int64_t n_in, int64_t group);

// Where packed weights go. int8 fills scales and code_sums (per row) or sums (groups); int4 scales and sums; ternary and
// trits scales alone.
struct Packed {
  void* weight;
  float* scales;       // [N padded], or [N padded / 16][G][16]
  int32_t* code_sums;  // [N padded]
  float* sums;         // [N padded]
};

// weight [N, K] f32 into f32, bf16, int8 or int4; the last two round to nearest, one symmetric scale a row or group.
void pack_f32(WeightKind kind, const float* weight, int64_t n_out, int64_t n_in, int64_t group, const Packed& to);

// Weights that are integer codes already: code (N, K) int8 with scales [N, K / source_group]. int8 per row rounds them
// onto one scale a row; int4, and int8 in groups of the source's size, keep codes and scales as they are; so do ternary
// and trits, whose codes are -1, 0 and 1 and whose group 0 takes a source with one scale a row.
void pack_codes(WeightKind kind, const int8_t* codes, const float* scales, int64_t source_group, int64_t n_out,
                int64_t n_in, int64_t group, const Packed& to);

}  // namespace kogata
