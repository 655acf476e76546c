// Vector type of the NEON units: 4 floats. The names are explained in vec_avx512.inl.
#include <arm_neon.h>

#include "digits.inl"

namespace kogata {
namespace {

constexpr int W = 4;
constexpr int kRowTile = 6;  // 6 x 16 columns = 24 of 32 registers accumulate
constexpr int kPanels = 1;
constexpr int kGroupRows = 2;
constexpr int kInt8Rows = 6;
constexpr int kPageRows = 6;
constexpr int kPagePanels = 1;
constexpr int kActivationOffset = 128;  // activation bytes are q - 128, signed
constexpr bool kBf16Dot = false;

using F = float32x4_t;
using I = int32x4_t;
using B = int8x16_t;
using X = int8x16_t;

inline F f_zero() { return vdupq_n_f32(0.0f); }
inline F f_set1(float v) { return vdupq_n_f32(v); }
inline F f_load(const float* p) { return vld1q_f32(p); }
inline void f_store(float* p, F v) { vst1q_f32(p, v); }
inline F f_load_n(const float* p, int n) {
  float lanes[4] = {0, 0, 0, 0};
  for (int i = 0; i < n; ++i) lanes[i] = p[i];
  return vld1q_f32(lanes);
}
inline void f_store_n(float* p, F v, int n) {
  float lanes[4];
  vst1q_f32(lanes, v);
  for (int i = 0; i < n; ++i) p[i] = lanes[i];
}
inline F f_add(F a, F b) { return vaddq_f32(a, b); }
inline F f_sub(F a, F b) { return vsubq_f32(a, b); }
inline F f_mul(F a, F b) { return vmulq_f32(a, b); }
inline F f_div(F a, F b) { return vdivq_f32(a, b); }
inline F f_fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
inline F f_max(F a, F b) { return vmaxq_f32(a, b); }
inline F f_min(F a, F b) { return vminq_f32(a, b); }
inline float f_sum(F v) { return vaddvq_f32(v); }
inline float f_hmax(F v) { return vmaxvq_f32(v); }
inline float f_hmin(F v) { return vminvq_f32(v); }

inline I i_zero() { return vdupq_n_s32(0); }
inline I i_set1(int32_t v) { return vdupq_n_s32(v); }
inline I i_load(const int32_t* p) { return vld1q_s32(p); }
inline I i_add(I a, I b) { return vaddq_s32(a, b); }
inline I i_sub(I a, I b) { return vsubq_s32(a, b); }
inline I i_mul(I a, I b) { return vmulq_s32(a, b); }
inline I i_max(I a, I b) { return vmaxq_s32(a, b); }
inline I i_min(I a, I b) { return vminq_s32(a, b); }
inline I i_round(F v) { return vcvtnq_s32_f32(v); }
inline F f_from_i(I v) { return vcvtq_f32_s32(v); }
inline F f_pow2(F n) {
  return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23));
}
inline void store_u8(uint8_t* p, I v) {
  int32_t lanes[4];
  vst1q_s32(lanes, v);
  for (int i = 0; i < 4; ++i) p[i] = static_cast<uint8_t>(lanes[i]);
}

inline X x_broadcast(const uint8_t* p) {
  int32_t quad;
  __builtin_memcpy(&quad, p, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(quad));
}
inline B b_load(const void* p) { return vld1q_s8(static_cast<const int8_t*>(p)); }
inline I i_dot4(I acc, X x, B w) {
#if defined(__ARM_FEATURE_DOTPROD)
  return vdotq_s32(acc, x, w);
#else
  const int16x8_t low = vmull_s8(vget_low_s8(x), vget_low_s8(w)), high = vmull_high_s8(x, w);
  return vaddq_s32(acc, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
#endif
}
// ternary: codes 0..2 against signed activations.
template <int S>
inline I i_dot_codes(I acc, const B (&codes)[S], const int8_t* x, int64_t step) {
  for (int s = 0; s < S; ++s) acc = i_dot4(acc, x_broadcast(reinterpret_cast<const uint8_t*>(x + s * step)), codes[s]);
  return acc;
}
template <int R>  // rows that are multiplied by them
inline void b_unpack(const void* p, B (&codes)[4]) {
  const uint8x16_t packed = vld1q_u8(static_cast<const uint8_t*>(p)), mask = vdupq_n_u8(3);
  codes[0] = vreinterpretq_s8_u8(vandq_u8(packed, mask));
  codes[1] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(packed, 2), mask));
  codes[2] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(packed, 4), mask));
  codes[3] = vreinterpretq_s8_u8(vshrq_n_u8(packed, 6));
}
template <int D>
inline uint8x16_t remainder_of(uint8x16_t v) {  // as in vec_avx512.inl
  return vminq_u8(vminq_u8(v, vsubq_u8(v, vdupq_n_u8(D))), vsubq_u8(v, vdupq_n_u8(2 * D)));
}
template <int R>  // rows that are multiplied by them
inline void b_unpack(const void* p, B (&codes)[5]) {
  const uint8x16_t packed = vld1q_u8(static_cast<const uint8_t*>(p)), digits = vld1q_u8(kDigitOf);
  const uint8x16_t low = remainder_of<81>(packed), below27 = remainder_of<27>(low), below9 = remainder_of<9>(below27);
  const uint8x16_t last = remainder_of<3>(below9), mask = vdupq_n_u8(15);
  codes[0] = vreinterpretq_s8_u8(last);
  codes[1] = vreinterpretq_s8_u8(vqtbl1q_u8(digits, vandq_u8(vsubq_u8(below9, last), mask)));
  codes[2] = vreinterpretq_s8_u8(vqtbl1q_u8(digits, vandq_u8(vsubq_u8(below27, below9), mask)));
  codes[3] = vreinterpretq_s8_u8(vqtbl1q_u8(digits, vandq_u8(vsubq_u8(low, below27), mask)));
  codes[4] = vreinterpretq_s8_u8(vshrq_n_u8(vsubq_u8(packed, low), 6));  // of 0, 81, 162
}

inline void b_load_codes(const void* p, B* first, B* second) {
  const uint8x16_t packed = vld1q_u8(static_cast<const uint8_t*>(p));
  const int8x16_t eight = vdupq_n_s8(8);
  *first = vsubq_s8(vreinterpretq_s8_u8(vandq_u8(packed, vdupq_n_u8(15))), eight);
  *second = vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(packed, 4)), eight);
}

inline void f_widen_pairs(const uint16_t* p, F* even, F* odd) {
  const uint32x4_t pairs = vreinterpretq_u32_u16(vld1q_u16(p));
  *even = vreinterpretq_f32_u32(vshlq_n_u32(pairs, 16));
  *odd = vreinterpretq_f32_u32(vandq_u32(pairs, vdupq_n_u32(0xffff0000u)));
}

// score: see vec_avx512.inl.
constexpr int kSignedOffset = 0;
inline F f_load_half(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
inline int32_t i_sum(I v) { return vaddvq_s32(v); }
inline void i_store(int32_t* p, I v) { vst1q_s32(p, v); }
inline bool i_any_at_least(I v, I limit) { return vmaxvq_u32(vcgeq_s32(v, limit)) != 0; }
inline void b_load_halves(const void* p, B* low, B* high) {
  const uint8x16_t packed = vld1q_u8(static_cast<const uint8_t*>(p));
  *low = vreinterpretq_s8_u8(vandq_u8(packed, vdupq_n_u8(15)));
  *high = vreinterpretq_s8_u8(vshrq_n_u8(packed, 4));
}
inline B b_broadcast(const int8_t* p) { return x_broadcast(reinterpret_cast<const uint8_t*>(p)); }
inline I i_dot4_halves(I acc, B halves, B query) { return i_dot4(acc, halves, query); }
inline I i_dot4_signed(I acc, B row, B query) { return i_dot4(acc, row, query); }

// pages: see vec_avx512.inl.
inline F f_less(F a, F b, F yes, F no) { return vbslq_f32(vcltq_f32(a, b), yes, no); }
inline I i_low7(I v) { return vandq_s32(v, vdupq_n_s32(127)); }
inline I i_shift7(I v) { return vshrq_n_s32(v, 7); }
inline B b_rows(const void* p) { return b_load(p); }
inline I i_dot4_rows(I acc, B rows, B query) { return i_dot4(acc, rows, query); }

}  // namespace
}  // namespace kogata
