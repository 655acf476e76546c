// Vector type of the AVX2 and AVX-VNNI units: 8 floats. The names are explained in vec_avx512.inl.
#include <immintrin.h>

#include "digits.inl"

namespace kogata {
namespace {

constexpr int W = 8;
constexpr int kRowTile = 6;  // 6 x 16 columns = 12 of 16 registers accumulate
constexpr int kPanels = 1;
constexpr int kGroupRows = 2;
constexpr int kPageRows = 6;
constexpr int kPagePanels = 1;
constexpr bool kBf16Dot = false;

using F = __m256;
using I = __m256i;
using B = __m256i;

inline F f_zero() { return _mm256_setzero_ps(); }
inline F f_set1(float v) { return _mm256_set1_ps(v); }
inline F f_load(const float* p) { return _mm256_loadu_ps(p); }
inline void f_store(float* p, F v) { _mm256_storeu_ps(p, v); }
inline __m256i first_lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline F f_load_n(const float* p, int n) { return _mm256_maskload_ps(p, first_lanes(n)); }
inline void f_store_n(float* p, F v, int n) { _mm256_maskstore_ps(p, first_lanes(n), v); }
inline F f_add(F a, F b) { return _mm256_add_ps(a, b); }
inline F f_sub(F a, F b) { return _mm256_sub_ps(a, b); }
inline F f_mul(F a, F b) { return _mm256_mul_ps(a, b); }
inline F f_div(F a, F b) { return _mm256_div_ps(a, b); }
inline F f_fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
inline F f_max(F a, F b) { return _mm256_max_ps(a, b); }
inline F f_min(F a, F b) { return _mm256_min_ps(a, b); }
inline float f_sum(F v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
inline float f_hmax(F v) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
}
inline float f_hmin(F v) {
  __m128 s = _mm_min_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_min_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_min_ss(s, _mm_shuffle_ps(s, s, 1)));
}

inline I i_zero() { return _mm256_setzero_si256(); }
inline I i_set1(int32_t v) { return _mm256_set1_epi32(v); }
inline I i_load(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline I i_add(I a, I b) { return _mm256_add_epi32(a, b); }
inline I i_sub(I a, I b) { return _mm256_sub_epi32(a, b); }
inline I i_mul(I a, I b) { return _mm256_mullo_epi32(a, b); }
inline I i_max(I a, I b) { return _mm256_max_epi32(a, b); }
inline I i_min(I a, I b) { return _mm256_min_epi32(a, b); }
inline I i_round(F v) { return _mm256_cvtps_epi32(v); }
inline F f_from_i(I v) { return _mm256_cvtepi32_ps(v); }
inline F f_pow2(F n) {  // n integral, -126..127
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
inline void store_u8(uint8_t* p, I v) {
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
}

inline B b_load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline void b_load_codes(const void* p, B* first, B* second) {
  const __m256i packed = b_load(p), mask = _mm256_set1_epi8(15), eight = _mm256_set1_epi8(8);
  *first = _mm256_sub_epi8(_mm256_and_si256(packed, mask), eight);
  *second = _mm256_sub_epi8(_mm256_and_si256(_mm256_srli_epi16(packed, 4), mask), eight);
}

inline int32_t load_quad(const uint8_t* p) {
  int32_t quad;
  __builtin_memcpy(&quad, p, 4);
  return quad;
}
#if defined(__AVXVNNI__)
constexpr int kInt8Rows = 6;
constexpr int kActivationOffset = 0;
using X = __m256i;
inline X x_broadcast(const uint8_t* p) { return _mm256_set1_epi32(load_quad(p)); }
inline I i_dot4(I acc, X x, B w) {
  asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(x), "x"(w));  // as in vec_avx512.inl
  return acc;
}
#else
// maddubs adds two u8 * s8 products in a saturating int16: 2 * 255 * 127 would not fit. So the activation bytes are
// q - 128, the unsigned side is their absolute value (at most 128) and the weights (at most 127) take their sign:
// 2 * 128 * 127 = 32512 fits.
constexpr int kInt8Rows = 3;
constexpr int kActivationOffset = 128;
struct X {
  __m256i magnitude, value;
};
inline X x_broadcast(const uint8_t* p) {
  const __m256i value = _mm256_set1_epi32(load_quad(p));
  return {_mm256_abs_epi8(value), value};
}
inline I i_dot4(I acc, X x, B w) {
  const __m256i pairs = _mm256_maddubs_epi16(x.magnitude, _mm256_sign_epi8(w, x.value));
  return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
#endif

// ternary: codes 0..2 against signed activations; the sums of up to five pairs stay below 5 * 2 * 2 * 128 in an int16.
template <int S>
inline I i_dot_codes(I acc, const B (&codes)[S], const int8_t* x, int64_t step) {
#if defined(__AVXVNNI__)
#pragma GCC unroll 8
  for (int s = 0; s < S; ++s) {
    const __m256i quad = _mm256_set1_epi32(load_quad(reinterpret_cast<const uint8_t*>(x + s * step)));
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(codes[s]), "x"(quad));
  }
  return acc;
#else
  __m256i pairs = _mm256_setzero_si256();
#pragma GCC unroll 8
  for (int s = 0; s < S; ++s) {
    const __m256i quad = _mm256_set1_epi32(load_quad(reinterpret_cast<const uint8_t*>(x + s * step)));
    pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(codes[s], quad));
  }
  return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
}
template <int R>  // rows that are multiplied by them
inline void b_unpack(const void* p, B (&codes)[4]) {
  const __m256i packed = b_load(p), mask = _mm256_set1_epi8(3);
  codes[0] = _mm256_and_si256(packed, mask);
  codes[1] = _mm256_and_si256(_mm256_srli_epi16(packed, 2), mask);
  codes[2] = _mm256_and_si256(_mm256_srli_epi16(packed, 4), mask);
  codes[3] = _mm256_and_si256(_mm256_srli_epi16(packed, 6), mask);
}
template <int D>
inline __m256i remainder_of(__m256i v) {  // as in vec_avx512.inl
  const __m256i once = _mm256_sub_epi8(v, _mm256_set1_epi8(static_cast<char>(D)));
  const __m256i twice = _mm256_sub_epi8(v, _mm256_set1_epi8(static_cast<char>(2 * D)));
  return _mm256_min_epu8(_mm256_min_epu8(v, once), twice);
}
template <int R>  // rows that are multiplied by them
inline void b_unpack(const void* p, B (&codes)[5]) {
  const __m256i packed = b_load(p), low = remainder_of<81>(packed);
  const __m256i digits = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(kDigitOf)));
  const __m256i below27 = remainder_of<27>(low), below9 = remainder_of<9>(below27);
  codes[0] = remainder_of<3>(below9);
  codes[1] = _mm256_shuffle_epi8(digits, _mm256_sub_epi8(below9, codes[0]));
  codes[2] = _mm256_shuffle_epi8(digits, _mm256_sub_epi8(below27, below9));
  codes[3] = _mm256_shuffle_epi8(digits, _mm256_sub_epi8(low, below27));
  codes[4] = _mm256_and_si256(_mm256_srli_epi16(_mm256_sub_epi8(packed, low), 6), _mm256_set1_epi8(3));
}

inline void f_widen_pairs(const uint16_t* p, F* even, F* odd) {
  const __m256i pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  *even = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
  *odd = _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int32_t>(0xffff0000u))));
}

// score: see vec_avx512.inl.
inline F f_load_half(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
inline int32_t i_sum(I v) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  s = _mm_add_epi32(s, _mm_unpackhi_epi64(s, s));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 1)));
}
inline void i_store(int32_t* p, I v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
inline bool i_any_at_least(I v, I limit) { return _mm256_movemask_epi8(_mm256_cmpgt_epi32(limit, v)) != -1; }
inline void b_load_halves(const void* p, B* low, B* high) {
  const __m256i packed = b_load(p), mask = _mm256_set1_epi8(15);
  *low = _mm256_and_si256(packed, mask);
  *high = _mm256_and_si256(_mm256_srli_epi16(packed, 4), mask);
}
inline B b_broadcast(const int8_t* p) {
  int32_t quad;
  __builtin_memcpy(&quad, p, 4);
  return _mm256_set1_epi32(quad);
}
#if defined(__AVXVNNI__)
constexpr int kSignedOffset = 128;
inline I i_dot4_halves(I acc, B halves, B query) { return _mm256_dpbusd_avx_epi32(acc, halves, query); }
inline I i_dot4_signed(I acc, B row, B query) {
  return _mm256_dpbusd_avx_epi32(acc, _mm256_xor_si256(row, _mm256_set1_epi8(-128)), query);
}
#else
constexpr int kSignedOffset = 0;
inline I i_dot4_halves(I acc, B halves, B query) {  // 2 * 15 * 127 fits an int16
  return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(halves, query), _mm256_set1_epi16(1)));
}
inline I i_dot4_signed(I acc, B row, B query) {  // so does 2 * 128 * 127: the row's bytes give the absolute values
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(row), _mm256_sign_epi8(query, row));
  return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
#endif

// pages: see vec_avx512.inl.
inline F f_less(F a, F b, F yes, F no) { return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
inline I i_low7(I v) { return _mm256_and_si256(v, _mm256_set1_epi32(127)); }
inline I i_shift7(I v) { return _mm256_srli_epi32(v, 7); }
#if defined(__AVXVNNI__)
inline B b_rows(const void* p) { return _mm256_xor_si256(b_load(p), _mm256_set1_epi8(-128)); }
inline I i_dot4_rows(I acc, B rows, B query) {
  asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(rows), "x"(query));
  return acc;
}
#else
inline B b_rows(const void* p) { return b_load(p); }
inline I i_dot4_rows(I acc, B rows, B query) { return i_dot4_signed(acc, rows, query); }
#endif

}  // namespace
}  // namespace kogata
