// Vector type of the AVX-512 units. F: 16 floats; I: 16 int32; B: 16 columns x 4 signed bytes; X: 4 activation bytes
// broadcast to every column. Names are the same in every vec_*.inl; the algorithms use nothing else.
#include <immintrin.h>

#include "digits.inl"

namespace kogata {
namespace {

constexpr int W = 16;
constexpr int kRowTile = 12;    // rows of a tile: 12 x 2 panels = 24 of 32 registers accumulate
constexpr int kPanels = 2;      // panels of a tile
constexpr int kGroupRows = 6;   // the same with scale groups, where floats accumulate beside integers
constexpr int kInt8Rows = 12;
constexpr int kPageRows = 6;    // entries of a tile over a page: 6 x 4 panels = 24 of 32 registers accumulate
constexpr int kPagePanels = 4;
constexpr int kActivationOffset = 0;  // activation bytes are q itself, unsigned

using F = __m512;
using I = __m512i;
using B = __m512i;
using X = __m512i;

inline F f_zero() { return _mm512_setzero_ps(); }
inline F f_set1(float v) { return _mm512_set1_ps(v); }
inline F f_load(const float* p) { return _mm512_loadu_ps(p); }
inline void f_store(float* p, F v) { _mm512_storeu_ps(p, v); }
inline __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
inline F f_load_n(const float* p, int n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
inline void f_store_n(float* p, F v, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), v); }
inline F f_add(F a, F b) { return _mm512_add_ps(a, b); }
inline F f_sub(F a, F b) { return _mm512_sub_ps(a, b); }
inline F f_mul(F a, F b) { return _mm512_mul_ps(a, b); }
inline F f_div(F a, F b) { return _mm512_div_ps(a, b); }
inline F f_fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
inline F f_max(F a, F b) { return _mm512_max_ps(a, b); }
inline F f_min(F a, F b) { return _mm512_min_ps(a, b); }
inline float f_sum(F v) { return _mm512_reduce_add_ps(v); }
inline float f_hmax(F v) { return _mm512_reduce_max_ps(v); }
inline float f_hmin(F v) { return _mm512_reduce_min_ps(v); }

inline I i_zero() { return _mm512_setzero_si512(); }
inline I i_set1(int32_t v) { return _mm512_set1_epi32(v); }
inline I i_load(const int32_t* p) { return _mm512_loadu_si512(p); }
inline I i_add(I a, I b) { return _mm512_add_epi32(a, b); }
inline I i_sub(I a, I b) { return _mm512_sub_epi32(a, b); }
inline I i_mul(I a, I b) { return _mm512_mullo_epi32(a, b); }
inline I i_max(I a, I b) { return _mm512_max_epi32(a, b); }
inline I i_min(I a, I b) { return _mm512_min_epi32(a, b); }
inline I i_round(F v) { return _mm512_cvtps_epi32(v); }
inline F f_from_i(I v) { return _mm512_cvtepi32_ps(v); }
inline F f_pow2(F n) { return _mm512_scalef_ps(_mm512_set1_ps(1.0f), n); }  // n integral
inline void store_u8(uint8_t* p, I v) {  // v in 0..255
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v));
}

inline X x_broadcast(const uint8_t* p) {
  int32_t quad;
  __builtin_memcpy(&quad, p, 4);
  return _mm512_set1_epi32(quad);
}
inline B b_load(const void* p) { return _mm512_loadu_si512(p); }
inline I i_dot4(I acc, X x, B w) {
  // gcc 12 copies the accumulators around its own intrinsic (seen: half the speed), so the instruction is spelt out.
  asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(x), "v"(w));
  return acc;
}
inline void b_load_codes(const void* p, B* first, B* second) {  // 16 columns x 8 int4 codes
  const __m512i packed = _mm512_loadu_si512(p), mask = _mm512_set1_epi8(15), eight = _mm512_set1_epi8(8);
  *first = _mm512_sub_epi8(_mm512_and_si512(packed, mask), eight);
  *second = _mm512_sub_epi8(_mm512_and_si512(_mm512_srli_epi16(packed, 4), mask), eight);
}

// ternary: codes 0..2 against signed activations. i_dot_codes: acc += codes[s] . x[s * step], the steps in order.
template <int S>
inline I i_dot_codes(I acc, const B (&codes)[S], const int8_t* x, int64_t step) {
  using Quad = int32_t __attribute__((may_alias));
#pragma GCC unroll 8
  for (int s = 0; s < S; ++s) {
    asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(codes[s]), "m"(*reinterpret_cast<const Quad*>(x + s * step)));
  }
  return acc;
}
template <int R>  // rows that are multiplied by them
inline void b_unpack(const void* p, B (&codes)[4]) {
  const __m512i packed = _mm512_loadu_si512(p), mask = _mm512_set1_epi8(3);
  codes[0] = _mm512_and_si512(packed, mask);
  codes[1] = _mm512_and_si512(_mm512_srli_epi16(packed, 2), mask);
  codes[2] = _mm512_and_si512(_mm512_srli_epi16(packed, 4), mask);
  codes[3] = _mm512_and_si512(_mm512_srli_epi16(packed, 6), mask);
}
// Bits 2 S and 2 S + 1 of every byte. Where one row is multiplied by them, by one instruction that picks bits (its matrix
// has bit 0 of the result in its last row); its constants take registers that more rows need.
template <int S, int R>
inline __m512i two_bits(__m512i v) {
  const __m512i mask = _mm512_set1_epi8(3);
  if constexpr (S == 0) return _mm512_and_si512(v, mask);
#if defined(__GFNI__)
  constexpr int64_t kPick = (int64_t{1} << 2 * S) << 56 | (int64_t{1} << (2 * S + 1)) << 48;
  if constexpr (R == 1) return _mm512_gf2p8affine_epi64_epi8(v, _mm512_set1_epi64(kPick), 0);
#endif
  return _mm512_and_si512(_mm512_srli_epi16(v, 2 * S), mask);
}
// The remainder of a division by D of bytes below 3 D, without dividing: what is below zero wraps to a large byte.
template <int D>
inline __m512i remainder_of(__m512i v) {
  const __m512i once = _mm512_sub_epi8(v, _mm512_set1_epi8(static_cast<char>(D)));
  const __m512i twice = _mm512_sub_epi8(v, _mm512_set1_epi8(static_cast<char>(2 * D)));
  return _mm512_min_epu8(_mm512_min_epu8(v, once), twice);
}
template <int R>  // rows that are multiplied by them
inline void b_unpack(const void* p, B (&codes)[5]) {
  const __m512i packed = _mm512_loadu_si512(p), low = remainder_of<81>(packed);
  codes[4] = two_bits<3, R>(_mm512_sub_epi8(packed, low));  // of 0, 81, 162
#if defined(__AVX512VBMI__)
  // Four digits of a number below 81, two bits each, from a table in two registers.
  const __m512i four = _mm512_permutex2var_epi8(_mm512_loadu_si512(kFourDigits), low, _mm512_loadu_si512(kFourDigits + 64));
  codes[0] = two_bits<0, R>(four);
  codes[1] = two_bits<1, R>(four);
  codes[2] = two_bits<2, R>(four);
  codes[3] = two_bits<3, R>(four);
#else
  const __m512i digits = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(kDigitOf)));
  const __m512i below27 = remainder_of<27>(low), below9 = remainder_of<9>(below27);
  codes[0] = remainder_of<3>(below9);
  codes[1] = _mm512_shuffle_epi8(digits, _mm512_sub_epi8(below9, codes[0]));
  codes[2] = _mm512_shuffle_epi8(digits, _mm512_sub_epi8(below27, below9));
  codes[3] = _mm512_shuffle_epi8(digits, _mm512_sub_epi8(low, below27));
#endif
}

// bf16 pairs: 16 columns x 2.
#if defined(__AVX512BF16__)
constexpr bool kBf16Dot = true;
using H = __m512i;
using P = __m512i;
inline H h_load(const uint16_t* p) { return _mm512_loadu_si512(p); }
inline P p_broadcast(const uint16_t* p) {
  int32_t pair;
  __builtin_memcpy(&pair, p, 4);
  return _mm512_set1_epi32(pair);
}
inline F f_dot2(F acc, P x, H w) {
  return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(w));
}
inline void h_store(void* p, H v) { _mm512_storeu_si512(p, v); }
inline __m256i h_rounded(F v) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)); }
inline void h_round(void* p, F v) { _mm256_storeu_si256(static_cast<__m256i*>(p), h_rounded(v)); }  // 16 in order
inline H h_pair(F first, F second) {  // lane by lane
  return _mm512_or_si512(_mm512_cvtepu16_epi32(h_rounded(first)),
                         _mm512_slli_epi32(_mm512_cvtepu16_epi32(h_rounded(second)), 16));
}
#else
constexpr bool kBf16Dot = false;
#endif

// Widens 16 pairs: `even` and `odd` hold the first and the second of each.
inline void f_widen_pairs(const uint16_t* p, F* even, F* odd) {
  const __m512i pairs = _mm512_loadu_si512(p);
  *even = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
  *odd = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int32_t>(0xffff0000u))));
}

// score: rows are the unsigned side of the dot product, so that nothing but the query needs correcting.
constexpr int kSignedOffset = 128;  // i_dot4_signed adds 128 times the query's sum
inline F f_load_half(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
inline int32_t i_sum(I v) { return _mm512_reduce_add_epi32(v); }
inline void i_store(int32_t* p, I v) { _mm512_storeu_si512(p, v); }
inline bool i_any_at_least(I v, I limit) { return _mm512_cmpge_epi32_mask(v, limit) != 0; }
inline void b_load_halves(const void* p, B* low, B* high) {  // 4-bit codes 0..15
  const __m512i packed = _mm512_loadu_si512(p), mask = _mm512_set1_epi8(15);
  *low = _mm512_and_si512(packed, mask);
  *high = _mm512_and_si512(_mm512_srli_epi16(packed, 4), mask);
}
inline B b_broadcast(const int8_t* p) {
  int32_t quad;
  __builtin_memcpy(&quad, p, 4);
  return _mm512_set1_epi32(quad);
}
inline I i_dot4_halves(I acc, B halves, B query) { return _mm512_dpbusd_epi32(acc, halves, query); }
inline I i_dot4_signed(I acc, B row, B query) {
  return _mm512_dpbusd_epi32(acc, _mm512_xor_si512(row, _mm512_set1_epi8(-128)), query);
}

// pages: b_rows prepares the cells of a page, which are the unsigned side here too; i_dot4_rows counts kSignedOffset in.
inline F f_less(F a, F b, F yes, F no) {  // a < b ? yes : no
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
}
inline I i_low7(I v) { return _mm512_and_si512(v, _mm512_set1_epi32(127)); }
inline I i_shift7(I v) { return _mm512_srli_epi32(v, 7); }
inline B b_rows(const void* p) { return _mm512_xor_si512(_mm512_loadu_si512(p), _mm512_set1_epi8(-128)); }
inline I i_dot4_rows(I acc, B rows, B query) {
  asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(rows), "v"(query));  // as in i_dot4
  return acc;
}

}  // namespace
}  // namespace kogata
