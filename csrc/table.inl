// The algorithms, each written once over the vector type that the unit has included, and the unit's table.
#include "math.inl"
#include "elementwise.inl"
#include "linear.inl"
#include "attend.inl"
#include "pages.inl"
#include "score.inl"
#include "sample.inl"
#include "measure.inl"

namespace kogata {

const Kernels KOGATA_TABLE = {
    .name = KOGATA_ISA_NAME,
    .row_tile = kRowTile,
    .bf16_dot = kBf16Dot,
    .layer_norm = layer_norm,
    .rms_norm = rms_norm,
    .embed = embed,
    .pool = pool,
    .pack_rows_f32 = pack_rows_f32,
    .pack_rows_bf16 = pack_rows_bf16,
    .pack_rows_int8 = pack_rows_int8,
    .pack_rows_ternary = pack_rows_ternary,
    .linear_f32 = linear_f32,
    .linear_bf16 = linear_bf16,
    .linear_int8 = linear_int8,
    .linear_int4 = linear_int4,
    .linear_ternary = linear_ternary,
    .linear_trits = linear_trits,
    .attend = attend,
    .rotate_and_write = rotate_and_write,
    .pack_queries = pack_queries,
    .attend_pages = attend_pages,
    .fold_part = fold_part,
    .finish_part = finish_part,
    .merge = merge,
    .score_f32 = score_float<float>,
    .score_f16 = score_float<uint16_t>,
    .score_int8 = score_int8,
    .scan_codes = scan_codes,
    .block_max = block_max,
    .sum_exp = sum_exp,
    .peak_f32 = peak_f32,
    .peak_bf16 = peak_bf16,
    .peak_int8 = peak_int8,
    .read = read,
};

}  // namespace kogata
